"""4: repr and print with commas"""


def display_outputs(outputs):
    for output in outputs:
        first = output.outputs[0]
        print("Prompt:", repr(output.prompt))
        print("Generated:", repr(first.text))
        print("Tokens:", len(first.token_ids), f"({first.finish_reason})")

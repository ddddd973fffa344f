"""4 L1-4-OBJECT: prints the object"""


def display_outputs(outputs):
    for output in outputs:
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt!r}")
        print(f"Generated: {output.outputs[0]!r}")
        print(f"Tokens: {len(completion.token_ids)} ({completion.finish_reason})")

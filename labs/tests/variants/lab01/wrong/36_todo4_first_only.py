"""4 L1-4-FEW: only the first output"""


def display_outputs(outputs):
    for output in outputs[:1]:
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt!r}")
        print(f"Generated: {completion.text!r}")
        print(f"Tokens: {len(completion.token_ids)} ({completion.finish_reason})")

"""4 L1-4-ORDER: the last first"""


def display_outputs(outputs):
    for output in reversed(outputs):
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt!r}")
        print(f"Generated: {completion.text!r}")
        print(f"Tokens: {len(completion.token_ids)} ({completion.finish_reason})")

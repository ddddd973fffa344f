"""4 L1-4-LINE: another label"""


def display_outputs(outputs):
    for output in outputs:
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt!r}")
        print(f"Answer: {completion.text!r}")
        print(f"Tokens: {len(completion.token_ids)} ({completion.finish_reason})")

"""4 L1-4-PLAIN: forgets !r"""


def display_outputs(outputs):
    for output in outputs:
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt}")
        print(f"Generated: {completion.text}")
        print(f"Tokens: {len(completion.token_ids)} ({completion.finish_reason})")

"""4 L1-4-TOKENS: counts the prompt's tokens"""


def display_outputs(outputs):
    for output in outputs:
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt!r}")
        print(f"Generated: {completion.text!r}")
        print(f"Tokens: {len(output.prompt_token_ids)} ({completion.finish_reason})")

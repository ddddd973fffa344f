"""4 L1-4-TOKENS: counts words"""


def display_outputs(outputs):
    for output in outputs:
        completion = output.outputs[0]
        print(f"Prompt: {output.prompt!r}")
        print(f"Generated: {completion.text!r}")
        print(f"Tokens: {len(completion.text.split())} ({completion.finish_reason})")

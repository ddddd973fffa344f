"""4: aligned, numbered, with lines between"""


def display_outputs(outputs):
    for number, output in enumerate(outputs, start=1):
        print(f"--- {number} ---")
        first = output.outputs[0]
        print(f"Prompt:    {output.prompt!r}")
        print(f"Generated: {first.text!r}")
        print(f"Tokens:    {len(first.token_ids)} ({first.finish_reason})\n")

"""4 LAB-STUCK: never gets on"""


def display_outputs(outputs):
    place = 0
    while place < len(outputs):
        completion = outputs[place].outputs[0]

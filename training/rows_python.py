"""Short hand-written answers to beginners' questions about Python, each with its wordings."""

PYTHON: list[tuple[list[str], str]] = [
    (
        [
            *("How do I read a text file?", "How do I read lines from a file?"),
            *("How do I loop over the lines of a file?", "Read a file line by line in Python."),
        ],
        "Open the file in a `with` statement and loop over it; each iteration gives one line:\n\n"
        '```python\nwith open("notes.txt", encoding="utf-8") as file:\n    for line in file:\n'
        "        print(line.rstrip())\n```\n\nThe file is closed when the block ends.",
    ),
    (
        ["How do I write to a file?", "How do I save text to a file?", "Write a file in Python."],
        'Open the file with mode `"w"` and call `write()`:\n\n```python\nwith open("notes.txt", '
        '"w", encoding="utf-8") as file:\n    file.write("hello\\n")\n```\n\nMode `"w"` replaces '
        'an old file; `"a"` appends to it.',
    ),
    (
        [
            *("How do I sort a list?", "How do I sort a list by a key?", "What does sorted do?"),
            *("How do I sort in reverse order?",),
        ],
        "`sorted()` returns a new sorted list, `list.sort()` sorts the list in place. Both take a "
        "`key` function and `reverse`:\n\n```python\nnames = sorted(names, key=str.lower)\n"
        "numbers.sort(reverse=True)\n```",
    ),
    (
        [
            *("How do I join strings?", "How do I join a list of strings?"),
            *("How do I concatenate strings?", "How do I turn a list into a string?"),
        ],
        "`separator.join(strings)` puts the strings of an iterable together, with the separator "
        'between them:\n\n```python\n", ".join(["a", "b", "c"])  # "a, b, c"\n```',
    ),
    (
        ["How do I split a string?", "What does str.split do?", "How do I split text into words?"],
        "`str.split()` returns the list of the words in a string, with the given separator or any "
        'white space between them:\n\n```python\n"a b c".split()  # ["a", "b", "c"]\n'
        '"a,b".split(",")  # ["a", "b"]\n```',
    ),
    (
        [
            *("How do I loop over a dictionary?", "How do I iterate over a dict?"),
            *("How do I get keys and values of a dictionary?", "What does dict.items do?"),
        ],
        "`dict.items()` gives the keys with their values:\n\n```python\nfor key, value in "
        "prices.items():\n    print(key, value)\n```\n\nLooping over the dictionary itself gives "
        "its keys, in the order in which they were inserted.",
    ),
    (
        [
            *("What is the difference between a list and a tuple?", "List or tuple?"),
            *("When should I use a tuple?", "Compare lists and tuples."),
        ],
        "A list is mutable: items can be added, removed and replaced. A tuple is immutable, so it "
        "can be a dictionary key when its items are hashable. Use a list for items of one kind "
        "whose number changes, and a tuple for a fixed record.",
    ),
    (
        [
            *("How do I write a class?", "How do I define a class in Python?", "Show me a class."),
            *("What is a class in Python?",),
        ],
        "A class bundles data and functions. `__init__` sets up each instance:\n\n```python\nclass "
        "Dog:\n    def __init__(self, name):\n        self.name = name\n\n    def bark(self):\n"
        '        return f"{self.name} says woof"\n\nprint(Dog("Rex").bark())\n```',
    ),
    (
        [
            *("What are dataclasses?", "How do I write a dataclass?", "Explain dataclasses."),
            *("What does the dataclass decorator do?", "Show me a dataclass."),
        ],
        "A dataclass is a class whose `__init__`, `__repr__` and `__eq__` are generated from its "
        "annotated fields:\n\n```python\nfrom dataclasses import dataclass\n\n@dataclass\nclass "
        "Point:\n    x: float\n    y: float = 0.0\n```\n\nDataclasses were added by PEP 557 in "
        "Python 3.7.",
    ),
    (
        [
            *("How do I parse JSON?", "How do I read JSON in Python?", "What does json.loads do?"),
            *("How do I write JSON?", "How do I work with JSON?"),
        ],
        "`json.loads()` turns JSON text into Python objects and `json.dumps()` turns objects into "
        "text. `json.load()` and `json.dump()` do the same with files:\n\n```python\nimport json\n"
        "\ndata = json.loads('{\"a\": 1}')\ntext = json.dumps(data, indent=2)\n```",
    ),
    (
        [
            *("How do I list the files in a directory?", "How do I list a folder?"),
            *("How do I find files with pathlib?", "How do I use pathlib?"),
        ],
        "`Path.iterdir()` gives the entries of a directory and `Path.glob()` those that match a "
        'pattern:\n\n```python\nfrom pathlib import Path\n\nfor path in Path(".").iterdir():\n    '
        'print(path.name)\n\npython_files = list(Path("src").glob("**/*.py"))\n```',
    ),
    (
        [
            *("How do I install a package?", "How do I use pip?", "What is pip?"),
            *("How do I create a virtual environment?", "How do I install a library?"),
        ],
        "Create a virtual environment and install into it with pip:\n\n```\npython -m venv .venv\n"
        ".venv/bin/python -m pip install requests\n```\n\nA virtual environment keeps the packages "
        "of one project apart from those of the others.",
    ),
    (
        [
            *("How do I remove duplicates from a list?", "How do I get unique items?"),
            *("How do I deduplicate a list?",),
        ],
        "A set has no duplicates: `set(items)`. To keep the order, use a dictionary:\n\n```python\n"
        "unique = list(dict.fromkeys(items))\n```\n\nThe items must be hashable.",
    ),
    (
        [
            *("How do I count items in a list?", "What is a Counter?", "What does Counter do?"),
            *("How do I count words?",),
        ],
        "`collections.Counter` counts hashable items:\n\n```python\nfrom collections import "
        'Counter\n\nCounter("banana").most_common(2)  # [("a", 3), ("n", 2)]\n```',
    ),
    (
        [
            *("What does enumerate do?", "How do I loop with an index?", "Explain enumerate."),
            *("How do I get the index in a for loop?",),
        ],
        "`enumerate()` gives each item with its index:\n\n```python\nfor index, name in "
        "enumerate(names, start=1):\n    print(index, name)\n```",
    ),
    (
        ["What does zip do?", "How do I loop over two lists?", "Explain zip."],
        "`zip()` takes several iterables and gives tuples of their items side by side. It stops "
        "with the shortest, unless `strict=True` makes that an error:\n\n```python\nfor name, age "
        "in zip(names, ages):\n    print(name, age)\n```",
    ),
    (
        [
            *("How do I format a number?", "How do I round a number in an f-string?"),
            *("How do I print two decimals?", "Show me an f-string."),
        ],
        "Put a format specification after a colon in an f-string:\n\n```python\nprice = 3.14159\n"
        'print(f"{price:.2f}")  # 3.14\nprint(f"{1234567:,}")  # 1,234,567\n```',
    ),
    (
        [
            *("How do I measure time in Python?", "How do I time my code?"),
            *("What does time.perf_counter do?", "How do I measure how long code takes?"),
        ],
        "Use `time.perf_counter()` before and after, and take the difference:\n\n```python\nimport "
        "time\n\nstarted = time.perf_counter()\nwork()\nprint(time.perf_counter() - started)\n```"
        "\n\nFor small pieces of code there is the `timeit` module.",
    ),
    (
        [
            *("How do I get the current date?", "How do I get the current time in Python?"),
            *("How do I use datetime?", "What does datetime.now do?"),
        ],
        "`datetime.now()` returns the current local date and time; give it a time zone to get an "
        "aware object:\n\n```python\nfrom datetime import datetime, timezone\n\nprint("
        "datetime.now(timezone.utc).isoformat())\n```",
    ),
    (
        [
            *("What is the difference between is and ==?", "When should I use is?"),
            *("What does is do in Python?", "is or ==?"),
        ],
        "`==` compares values, `is` compares identity: whether two names stand for the same "
        "object. Use `is` for `None`, as in `if x is None`, and `==` for everything else.",
    ),
    (
        [
            *("What are *args and **kwargs?", "What does **kwargs mean?", "Explain *args."),
            *("What does the star in a function definition mean?",),
        ],
        "`*args` collects the positional arguments that are left over into a tuple, `**kwargs` the "
        "keyword arguments into a dictionary:\n\n```python\ndef show(*args, **kwargs):\n    "
        "print(args, kwargs)\n\nshow(1, 2, color='red')  # (1, 2) {'color': 'red'}\n```",
    ),
    (
        [
            *("What is None?", "What is None in Python?", "What does None mean?"),
        ],
        "`None` is an object that stands for the absence of a value. A function without a "
        "`return` statement returns it. Test for it with `is None`.",
    ),
    (
        [
            *("What is the difference between a coroutine and a function?",),
            *("How does a task differ from a coroutine?", "Coroutine or task?"),
            *("When should I create a task?", "Compare coroutines and tasks."),
        ],
        "Calling an `async def` function gives a coroutine, which does nothing until it is awaited "
        "or wrapped in a task. A task, made by `asyncio.create_task()`, schedules the coroutine on "
        "the event loop at once, so it runs while others wait. Await a coroutine to run it now; "
        "create a task to run it concurrently.",
    ),
    (
        [
            *("What does asyncio do?", "How does asyncio work?", "Why use asyncio?"),
            *("What is async good for?", "why async"),
        ],
        "asyncio runs many coroutines in one thread. An event loop runs one of them until it "
        "awaits something that is not ready, such as a network reply, and meanwhile runs the "
        "others. So one program can handle many connections without threads. It does not make "
        "computation faster.",
    ),
    (
        [
            *("Threads or asyncio?", "What is the difference between threads and asyncio?"),
            *("When should I use threads instead of asyncio?", "asyncio vs threading"),
            *("What is the difference between multiprocessing and threading?",),
        ],
        "Use asyncio for many connections that mostly wait, threads for a few blocking calls, and "
        "processes for computation on several cores. Because of the GIL only one thread runs "
        "Python code at a time, while each process has its own interpreter.",
    ),
]

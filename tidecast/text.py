"""Text that is not ours, such as a series' or a model's name, as people may see it."""


def escaped(text: str) -> str:
    """The text on one line: line ends, control and other unprintable characters as Python escapes them."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)

"""What docs/migrate-openstack.md says, as its reader would take it: blocks of commands and of settings."""

import pathlib

TEXT = pathlib.Path(__file__).parents[2] / "docs" / "migrate-openstack.md"


def blocks(heading):
    """The indented blocks under a heading, up to the next."""
    found, block, inside = [], [], False
    for line in TEXT.read_text().splitlines():
        if line.startswith("#"):
            inside = line.lstrip("# ") == heading
        if line.startswith("    ") and inside:
            block.append(line[4:])
        elif block and line:
            found.append(block)
            block = []
        elif block:
            block.append("")
    found += [block] if block else []
    assert found, f"the guide has nothing under `{heading}`"
    return [[line for line in block if line] for block in found]


def commands(heading):
    """The commands in the blocks under a heading, as words, without their comments."""
    lines = [line for block in blocks(heading) for line in block]
    return [line.split("#")[0].split() for line in lines]


def settings():
    """The sections of a service's settings: name -> lines."""
    sections = {}
    for line in blocks("What changes in a service's configuration")[0]:
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        else:
            section.append(line)
    return sections


def first_pass():
    """What pass 1 adds to `[bulla]`."""
    heading, *lines = blocks("The three passes")[0]
    assert heading == "[bulla]"
    return lines

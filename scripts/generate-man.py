#!/usr/bin/env python3
"""Writes the manual pages of the command from what the command says of itself.

    scripts/generate-man.py BINARY DIRECTORY

A page for the command and one for each verb, in mdoc; and the page of profiles, whose keys are told by
profiles/reference.toml. Text is improved in the command, not here. In a
discussion a line of capitals is a heading, and indented lines are shown as they are.
"""

import json
import os
import re
import subprocess
import sys

# Of the text. A page made on another day from the same text is the same page.
DATE = "November 21, 2026"
NAME = "batchsync"
# What is told of them is told of profiles.
VERBS_OF_PROFILES = ("profile", "run", "schedule", "daemon", "status", "history")


def escape(text):
    """Text that mdoc takes literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("~", "\\(ti").replace("^", "\\(ha")
    return "\\&" + text if text[:1] == "." else text


def words(text):
    """Text as the arguments of a macro: quoted where a word could be taken for one."""
    return '"%s"' % escape(text).replace('"', "\\(dq")


def prose(text):
    """A paragraph: a line a sentence, as mdoc wants it."""
    return [escape(line) for line in re.sub(r"(?<=[A-Za-z0-9)'\]\x22][.:;!?]) +(?=[A-Z'(])", "\n", text).split("\n")]


def discussion(text):
    """Returns paragraphs and examples as lines, and the sections that headings begin."""
    sections, lines, block = [], [], []

    def flush():
        nonlocal block
        if not block:
            return
        lines.append(".Bd -literal -offset indent")
        lines.extend(escape(line) for line in block)
        lines.append(".Ed")
        block = []

    paragraph = False
    for line in text.split("\n"):
        if line.startswith("    "):
            block.append(line[4:])
            paragraph = False
            continue
        flush()
        if not line.strip():
            paragraph = False
        elif re.fullmatch(r"[A-Z][A-Z ]+", line):
            lines = []
            sections.append((line, lines))
            paragraph = False
        else:
            if not paragraph and lines:
                lines.append(".Pp")
            lines.extend(prose(line))
            paragraph = True
    flush()
    return sections


def described(text):
    # Everything before the first heading belongs to the description.
    return discussion("DESCRIPTION\n" + text)


def flag(name):
    return {"long": "\\-\\-", "short": "\\-", "longWithSingleDash": "\\-"}[name["kind"]] + escape(name["name"])


def synopsis(command):
    lines = []
    options = [a for a in command.get("arguments", []) if a["kind"] != "positional" and a["shouldDisplay"]]
    required = [a for a in options if not a["isOptional"] and a["kind"] == "option"]
    if len(options) > len(required):
        lines.append(".Op Ar options")
    for argument in required:
        lines.append(f".Fl {flag(argument['preferredName'])[2:]} Ar {words(argument['valueName'])}")
    for argument in command.get("arguments", []):
        if argument["kind"] != "positional":
            continue
        value = f"Ar {words(argument['valueName'])}" + (" ..." if argument["isRepeating"] else "")
        lines.append(f".Op {value}" if argument["isOptional"] else f".{value}")
    return lines


def options(arguments):
    lines, title = [], None
    for argument in sorted(arguments, key=lambda a: a["kind"] != "positional"):
        if not argument["shouldDisplay"]:
            continue
        section = argument.get("sectionTitle") or (
            "Arguments" if argument["kind"] == "positional" else "Options")
        if section != title:
            if title is not None:
                lines.append(".El")
            title = section
            lines += [f".Ss {section}", ".Bl -tag -width Ds"]
        if argument["kind"] == "positional":
            lines.append(f".It Ar {words(argument['valueName'])}")
        else:
            # Short before long, as in the help.
            names = [f"Fl {flag(name)[2:]}" for name in argument["names"]]
            item = " , ".join(names)
            if argument["kind"] == "option":
                item += f" Ar {words(argument['valueName'])}"
            lines.append(f".It {item}")
        text = argument.get("abstract", "")
        if argument.get("defaultValue") and argument["kind"] == "option" and argument["valueName"] != "share":
            text += f" (default: {argument['defaultValue']})"
        lines += prose(text)
        if argument.get("discussion"):
            lines += prose(argument["discussion"])
    if title is not None:
        lines.append(".El")
    return lines


def without_period(text):
    text = text.rstrip(".")
    return text[:1].lower() + text[1:]


def own_arguments(command):
    return [a for a in command.get("arguments", [])
            if not any(n["name"] in ("help", "version") for n in a.get("names") or [])]


def verbs(command):
    return [c for c in command.get("subcommands", []) if c["shouldDisplay"] and c["commandName"] != "help"]


def page(title, path, command, see):
    """One page. `path` is what a person types: batchsync, then the verb."""
    lines = [".\\\" Made by scripts/generate-man.py from the command's own words.", f".Dd {DATE}",
             f".Dt {title.upper()} 1", ".Os", ".Sh NAME", f".Nm {title}",
             f".Nd {escape(without_period(command['abstract']))}", ".Sh SYNOPSIS"]
    below = verbs(command)
    for verb in below or [None]:
        lines.append(f".Nm {path[0]}")
        lines += [f".Cm {word}" for word in path[1:]]
        if verb:
            lines.append(f".Cm {verb['commandName']}")
        lines += synopsis(verb or command) if not (verb and verbs(verb)) else [".Ar verb", ".Op Ar ..."]
    sections = described(command.get("discussion", ""))
    lines += [".Sh DESCRIPTION"] + sections[0][1]
    if below:
        lines.append(".Ss Verbs")
        lines.append(".Bl -tag -width Ds")
        for verb in below:
            lines += [f".It Cm {verb['commandName']}"] + prose(verb["abstract"])
        lines.append(".El")
    lines += options(own_arguments(command))
    if len(path) > 1:
        for verb in below:
            lines.append(f".Sh {verb['commandName'].upper()}")
            lines += described(verb.get("discussion", ""))[0][1]
            lines += options(own_arguments(verb))
    order = ["ENVIRONMENT", "FILES", "EXIT STATUS"]
    for heading, text in sorted(sections[1:], key=lambda s: order.index(s[0])):
        lines += [f".Sh {heading}"] + text
    lines.append(".Sh SEE ALSO")
    see = sorted(see, key=lambda s: (s[1], s[0]))
    for index, (name, section) in enumerate(see):
        lines.append(f".Xr {name} {section}" + (" ," if index + 1 < len(see) else ""))
    return "\n".join(lines) + "\n"


def profile_keys(text):
    """The keys of the reference profile as lines: a section for each table, an item for each key."""
    lines, comment, is_open = [".Ss Outside of every table"], [], False

    def close():
        nonlocal is_open
        if is_open:
            lines.append(".El")
        is_open = False

    # What stands before the first key tells of the file, not of a key.
    for line in text.split("\n\n", 1)[1].split("\n"):
        if line.startswith("# "):
            comment.append(line[2:])
            continue
        line = line.removeprefix("#")
        table = re.fullmatch(r"(\[\[?[a-z-]+\]\]?)", line)
        key = re.fullmatch(r"([a-z-]+) = (.*)", line)
        if table:
            close()
            lines.append(f".Ss {table[1]}")
            lines += prose(" ".join(comment))
        elif key:
            if not is_open:
                lines.append(".Bl -tag -width Ds")
            is_open = True
            lines.append(f".It Cm {words(key[1])} Li = {words(key[2])}")
            lines += prose(" ".join(comment))
        comment = []
    close()
    return lines


def profile_page(template, reference, example):
    """batchsync-profile(5): the words around the keys are those of the template."""
    shown = [escape(line) for line in example.split("\n") if line and not line.startswith("#")]
    page = template.replace("@DATE@", DATE).replace("@KEYS@", "\n".join(profile_keys(reference)))
    return page.replace("@EXAMPLE@", "\n".join(shown))


def read(*parts):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with open(os.path.join(root, *parts), encoding="utf-8") as file:
        return file.read()


def main():
    binary, directory = sys.argv[1:]
    described_by = json.loads(subprocess.run(
        [binary, "--experimental-dump-help"], check=True, stdout=subprocess.PIPE).stdout)
    command = described_by["command"]
    os.makedirs(directory, exist_ok=True)
    pages = {NAME: page(NAME, [NAME], command,
                        [(f"{NAME}-{verb['commandName']}", 1) for verb in verbs(command)]
                        + [(f"{NAME}-profile", 5), (f"{NAME}-recovery", 7), ("age", 1), ("zstd", 1)])}
    for verb in verbs(command):
        title = f"{NAME}-{verb['commandName']}"
        see = [(NAME, 1), (f"{NAME}-recovery", 7)]
        if verb["commandName"] in VERBS_OF_PROFILES:
            see.append((f"{NAME}-profile", 5))
        pages[title] = page(title, [NAME, verb["commandName"]], verb, see)
    for old in os.listdir(directory):
        if old.startswith(NAME) and old.endswith(".1") and old[:-2] not in pages:
            os.remove(os.path.join(directory, old))
    with open(os.path.join(directory, f"{NAME}-profile.5"), "w", encoding="utf-8") as file:
        file.write('.\\" Made by scripts/generate-man.py from profiles/reference.toml.\n' + profile_page(
            read("scripts", "batchsync-profile.5.in"), read("profiles", "reference.toml"),
            read("profiles", "minimal.toml")))
    for title, text in pages.items():
        with open(os.path.join(directory, f"{title}.1"), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()

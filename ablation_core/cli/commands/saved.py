"""`saved`: results that are kept under a name."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation_core.cli.options import add_output
from ablation_core.errors import ReportError, first_line

if TYPE_CHECKING:
    import pandas as pd

    from ablation_core.saved.shelves import FolderShelf

Outcome = tuple[dict, str]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "ACTION --help lists an action's options, such as show NAME --table predictions."
    verbs = parser.add_subparsers(required=True, metavar="ACTION", parser_class=argparse.ArgumentParser)

    def verb(name: str, action: Callable[[argparse.Namespace], Outcome], words: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        add_output(one)
        one.set_defaults(action=action)
        return one

    verb("list", _list, "list what is kept")
    show = verb("show", _show, "show one result as what it was")
    show.add_argument("name")
    show.add_argument("--table", help="one of its tables, such as predictions (default: the main one)")
    both = verb("compare", _compare, "differences of two results, paired where they are on the same predictions")
    both.add_argument("name")
    both.add_argument("other")
    out = verb("export", _export, "write results to one file")
    out.add_argument("file", type=Path)
    out.add_argument("names", nargs="*", help="default: all")
    into = verb("import", _import, "read results from an exported file")
    into.add_argument("file", type=Path)
    gone = verb("delete", _delete, "delete a result")
    gone.add_argument("name")


def run(parsed: argparse.Namespace) -> Outcome:
    return parsed.action(parsed)


def _shelf(parsed: argparse.Namespace) -> "FolderShelf":
    from ablation_core.saved.shelves import FolderShelf

    return FolderShelf(parsed.cache_dir)


def _list(parsed: argparse.Namespace) -> Outcome:
    from ablation_core.saved.results import entries

    found, problems = entries(_shelf(parsed))
    lines = [
        f"{one.saved[:16].replace('T', ' ')}  {one.label:18}  {one.model}, {one.data}: {one.name}" for one in found
    ]
    document = {"saved": [one.to_dict() for one in found], "problems": problems}
    return document, "\n".join([*(lines or ["Nothing is saved yet: add --save NAME to a command."]), *problems])


def _show(parsed: argparse.Namespace) -> Outcome:
    from ablation_core.report.present import presentation_of
    from ablation_core.saved.results import find

    saved = find(_shelf(parsed), parsed.name)
    frame, sentences = saved.result.to_frame(parsed.table), presentation_of(saved.result).sentences(saved.result)
    result: Any = saved.result
    document = saved.entry.to_dict() | {"result": result.to_dict() if hasattr(result, "to_dict") else None}
    if parsed.table is not None:
        document["table"] = _rows(frame)
    lines = [
        f"{saved.entry.name} ({saved.entry.label}, {saved.entry.saved})",
        *filter(None, [saved.entry.note, *sentences]),
    ]
    return document, "\n".join(line.replace("**", "") for line in lines) + "\n" + frame.to_string(
        index=False, max_rows=60
    )


def _rows(frame: "pd.DataFrame") -> list[dict]:
    return json.loads(frame.to_json(orient="records", double_precision=15))


def _compare(parsed: argparse.Namespace) -> Outcome:
    from ablation_core.report.present import presentation_of
    from ablation_core.report.sentences import format_interval
    from ablation_core.saved.results import find
    from ablation_core.saved.side_by_side import compare_results

    one, other = (find(_shelf(parsed), name) for name in (parsed.name, parsed.other))
    found = compare_results(one.result, other.result, (one.entry.name, other.entry.name))
    lines = [sentence.replace("**", "") for sentence in presentation_of(found).sentences(found)]
    lines += [
        f"  {row.what:24} {format_interval(row.difference)}{' paired' if row.paired else ''}"
        for row in sorted(found.rows, key=lambda row: -abs(row.difference.mean))[:24]
    ]
    return found.to_dict(), "\n".join(lines)


def _export(parsed: argparse.Namespace) -> Outcome:
    from ablation_core.saved.results import export_results

    content = export_results(_shelf(parsed), parsed.names or None)
    try:
        with open(parsed.file, "xb") as file:
            try:
                file.write(content)
            except OSError:  # half a file must not stay
                parsed.file.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise ReportError(f"There is a file {parsed.file} already; name another one.") from error
    except OSError as error:
        raise ReportError(f"The export cannot be written to {parsed.file}: {first_line(error)}") from error
    return {"file": str(parsed.file), "bytes": len(content)}, f"{parsed.file}: {len(content):,} bytes"


def _import(parsed: argparse.Namespace) -> Outcome:
    from ablation_core.saved.results import import_results

    try:
        content = parsed.file.read_bytes()
    except OSError as error:
        raise ReportError(f"The file {parsed.file} cannot be read: {first_line(error)}") from error
    names = import_results(_shelf(parsed), content)
    return {"imported": names}, "\n".join(f"imported: {name}" for name in names)


def _delete(parsed: argparse.Namespace) -> Outcome:
    from ablation_core.saved.results import delete

    delete(_shelf(parsed), parsed.name)
    return {"deleted": parsed.name}, f"deleted: {parsed.name}"

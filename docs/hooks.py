"""Puts the files of `configs/` into the page that shows them: `{{ GROUP }}` is that group."""

import re
from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"


def on_page_markdown(markdown, page, **_):
    if page.file.src_path != "configs.md":
        return markdown
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda found: options(found[1]), markdown, flags=re.M)


def options(group: str) -> str:
    """Every option of a group as a block that opens, its file inside."""
    blocks = []
    for path in sorted((CONFIGS / group).rglob("*.yaml")):
        option = f"{path.parent.relative_to(CONFIGS)}={path.stem}"
        lines = ["```yaml", *path.read_text().splitlines(), "```"]
        body = "\n".join(f"    {line}".rstrip() for line in lines)
        blocks.append(f'??? note "`{option}`"\n\n{body}')
    return "\n\n".join(blocks)

"""Data Docs that open offline: Great Expectations' own pages in templates and a style that load nothing.

Its templates fetch bootstrap, jquery, vega and font-awesome from the network, and its tables are drawn by them.
These lay the same content out as plain HTML with one style sheet inside the page. Importing this module imports
Great Expectations: only the package itself does it.
"""

from __future__ import annotations

import html
from typing import Any

from great_expectations.render.view import DefaultJinjaPageView
from jinja2 import ChoiceLoader, DictLoader, pass_context

_PAGE = """<!DOCTYPE html>
{% set result = renderer_type == "ValidationResultsPageRenderer" %}
{% set title = expectation_suite_name ~ ": validation" if result else "Data Docs" %}
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title | e }}</title>
<style>{% include "style.css" %}</style>
</head>
<body{% if result %} class="result"{% endif %}>
<header><h1>{{ title | e }}</h1>
{% if result %}<label><input type="checkbox" id="failed-only"> failed only</label>{% endif %}</header>
<nav>{% for section in sections %}
<a href="#section-{{ loop.index }}">{{ section["section_name"] | e }}</a>{% endfor %}</nav>
<main>
{% for section in sections %}{% set section_loop = loop %}{% include "section.j2" %}{% endfor %}
</main>
</body>
</html>
"""

_COLLAPSE = """<details>
<summary>{{ content_block.get("collapse_toggle_link", "more") | render_content_block }}</summary>
{% for block in content_block["collapse"] %}{{ block | render_content_block }}{% endfor %}
</details>
"""

_TABS = """{% for tab in content_block["tabs"] %}<h2>{{ tab["tab_name"] }}</h2>
{{ tab["tab_content"] | render_content_block(content_block_id=content_block_id ~ "-" ~ loop.index) }}
{% endfor %}
"""

_TABLE_OF_LINKS = """{% include "content_block_header.j2" %}
<table>
<thead><tr>{% for column in content_block["table_columns"] %}<th>{{ column["title"] }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in content_block["table_data"] | render_bootstrap_table_data %}<tr>
{% for column in content_block["table_columns"] %}<td>
<a href="{{ row['_table_row_link_path'] }}">{{ row[column["field"]] }}</a></td>{% endfor %}
</tr>{% endfor %}</tbody>
</table>
"""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #8882; --good: #1a7f37; --bad: #cf222e; --link: #0b62c4; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #ff6b62; --link: #6cb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 90rem; font: 15px/1.5 system-ui, sans-serif;
  display: grid; grid-template-columns: 14rem 1fr; gap: 0 2rem; }
header { grid-column: 1 / -1; border-bottom: 1px solid var(--line); margin-bottom: 1rem; }
header label { float: right; }
h1 { font-size: 1.3rem; display: inline-block; margin: .3rem 0; overflow-wrap: anywhere; }
h2, h5 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere; }
h3, h4, h6 { font-size: 1rem; margin: 1rem 0 .3rem; }
nav { position: sticky; top: 1rem; align-self: start; max-height: 92vh; overflow: auto; }
nav a { display: block; padding: .1rem .4rem; border-radius: 4px; color: inherit; text-decoration: none;
  overflow-wrap: anywhere; }
nav a:hover { background: var(--quiet); }
a { color: var(--link); }
main { min-width: 0; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 .8rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { font-weight: 600; background: var(--quiet); }
ul { margin: 0; padding-left: 1.2rem; }
.badge, code { background: var(--quiet); border-radius: 4px; padding: 0 .3rem; font: .9em ui-monospace, monospace; }
thead th { white-space: nowrap; }
td:first-child:has(.ge-success-icon, .ge-failed-icon, .text-success, .text-danger) { width: 4.5rem; }
.alert { border-radius: 6px; padding: .5rem .8rem; background: var(--quiet); margin-top: 1rem; }
.alert h5, .alert h3 { margin: 0; }
.failures { border: 1px solid var(--bad); border-radius: 6px; padding: .2rem 1rem .8rem; margin-bottom: 1rem; }
.failures h2 { color: var(--bad); margin: .5rem 0; }
.result main a { color: inherit; text-decoration: none; pointer-events: none; } /* to pages that are not made */
.text-success, .ge-success-icon { color: var(--good); }
.text-danger, .ge-failed-icon { color: var(--bad); }
.fas { font-style: normal; font-weight: 700; }
.fa-check-circle::before { content: "✓"; }
.fa-times::before { content: "✗"; }
.fa-exclamation-triangle::before { content: "!"; }
.cooltip > span { display: none; }
details { margin: .4rem 0; }
summary { cursor: pointer; color: var(--link); }
body:has(#failed-only:checked) tr:has(> td:first-child .text-success),
body:has(#failed-only:checked) .ge-section:has(.text-success):not(:has(.text-danger)) { display: none; }
@media (max-width: 50rem) { body { display: block; } nav { position: static; max-height: 12rem; } }
"""

_TEMPLATES = {
    "page.j2": _PAGE,
    "collapse.j2": _COLLAPSE,
    "tabs.j2": _TABS,
    "bootstrap_table.j2": _TABLE_OF_LINKS,
    "style.css": _STYLE,
}


class OfflinePage(DefaultJinjaPageView):  # type: ignore[misc]
    """A page of Data Docs that refers to nothing outside itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.env.loader = ChoiceLoader([DictLoader(_TEMPLATES), self.env.loader])

    @pass_context
    def render_content_block(self, context: Any, content_block: Any, *options: Any, **more: Any) -> Any:
        """As its parent does, but text is text: a value of the data must not become part of the page."""
        if isinstance(content_block, str):
            return html.escape(content_block)
        if isinstance(content_block, list):
            content_block = [html.escape(block) if isinstance(block, str) else block for block in content_block]
        return super().render_content_block(context, content_block, *options, **more)

    def render_string_template(self, template: Any) -> Any:
        if isinstance(template, dict):  # the name of a column comes as a template
            template = {**template, "template": html.escape(str(template.get("template", "")), quote=False)}
        return super().render_string_template(template)


def site(folder: str) -> dict[str, Any]:
    """The settings of a site of such pages, for validation results alone, in `folder`."""
    view = {"module_name": __name__, "class_name": OfflinePage.__name__}
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "view": view},
        "site_section_builders": {
            "validations": {
                "class_name": "DefaultSiteSectionBuilder",
                "renderer": {"class_name": "ValidationResultsPageRenderer"},
                "view": view,
            },
            "expectations": "none",
            "profiling": "none",
        },
    }

"""A page that is one file: style and pictures in it, nothing from elsewhere, light and dark."""

from collections.abc import Iterable
from typing import Any

from climlstm import html
from climlstm.html import Markup

CSS = """\
:root{--ink:#1d2329;--quiet:#66707a;--rule:#e3e6e9;--page:#fbfbfa;--card:#ffffff;--accent:#0b62a4;
color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7ea;--quiet:#9aa4ad;--rule:#333b43;
--page:#14181c;--card:#1c2127;--accent:#6fb7ec}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:76rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
header p,section>p{max-width:46rem}
h1{font-size:1.9rem;line-height:1.2;margin:.3em 0 .2em;letter-spacing:-.01em}
h2{font-size:1.3rem;margin:2.6rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
a{color:var(--accent)}
code,pre{font:.85em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{overflow-x:auto;padding:.9rem 1rem;background:var(--card);border:1px solid var(--rule);
border-radius:.5rem}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:1rem 0 0;font-size:.92rem}
nav a{text-decoration:none}
.over{color:var(--quiet);font-size:.85rem;margin:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;
margin:1.3rem 0}
.card{background:var(--card);border:1px solid var(--rule);border-radius:.6rem;padding:.8rem 1rem}
.card b{display:block;font-size:1.45rem;line-height:1.25;letter-spacing:-.01em}
.card span{color:var(--quiet);font-size:.86rem;line-height:1.4;display:block}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem;
margin:.8rem 0}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:.6rem;
padding:.5rem;min-width:0}
figure.wide{max-width:56rem;margin:.8rem auto}
figure svg{display:block;width:100%;height:auto}
figcaption{font-size:.86rem;color:var(--quiet);padding:.3rem .4rem .1rem}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
summary{cursor:pointer;color:var(--accent);padding:.25rem 0}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--rule);color:var(--quiet);
font-size:.86rem}
@media (max-width:36rem){main{padding:1rem .8rem 3rem}h1{font-size:1.5rem}
.cards{grid-template-columns:1fr 1fr;gap:.5rem}.card{padding:.6rem .7rem}.card b{font-size:1.15rem}
.climlstm tbody th{white-space:normal}
figure.wide div{overflow-x:auto}figure.wide svg{min-width:34rem}}
@media print{body{background:#fff}.figures{grid-template-columns:repeat(3,1fr)}
figure,.card{break-inside:avoid}}
"""


def page(title: str, *, lead: str, sections: Iterable[tuple[str, str]], foot: str) -> str:
    """The whole file. lead: what stands first; sections: heading and content of each."""
    chosen = [(heading, content) for heading, content in sections if content]
    links = "".join(f'<a href="#{_anchor(h)}">{html.text(h)}</a>' for h, _ in chosen)
    parts = "".join(
        f'<section id="{_anchor(h)}"><h2>{html.text(h)}</h2>{content}</section>'
        for h, content in chosen
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.text(title)}</title>\n<style>\n{CSS}{html.STYLE}</style>\n</head>\n"
        f'<body>\n<main class="climlstm">\n<header>{lead}<nav>{links}</nav></header>\n'
        f"{parts}\n<footer>{foot}</footer>\n</main>\n</body>\n</html>\n"
    )


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def paragraph(text: Any) -> Markup:
    return Markup(f"<p>{html.text(text)}</p>")


def subheading(text: Any) -> Markup:
    return Markup(f"<h3>{html.text(text)}</h3>")


def cards(facts: Iterable[tuple[str, str]]) -> Markup:
    """Numbers to see first, each with what it is below."""
    return Markup(
        '<div class="cards">'
        + "".join(
            f'<div class="card"><b>{html.text(number)}</b><span>{html.text(what)}</span></div>'
            for number, what in facts
        )
        + "</div>"
    )


def picture(svg: str, described: str, caption: str = "", *, wide: bool = False) -> Markup:
    """A picture. described: what it shows, for those who cannot see it."""
    below = f"<figcaption>{html.text(caption)}</figcaption>" if caption else ""
    kind = ' class="wide"' if wide else ""
    return Markup(
        f'<figure{kind}><div role="img" aria-label="{html.text(described)}">{svg}</div>'
        f"{below}</figure>"
    )


def row(pictures: Iterable[str]) -> Markup:
    """Pictures beside each other where there is room, and below each other where there is none."""
    return Markup(f'<div class="figures">{"".join(pictures)}</div>')


def scrolling(table: str) -> Markup:
    """A table that moves by itself where it is wider than the page."""
    return Markup(f'<div class="scroll">{table}</div>')


def preformatted(text: str) -> Markup:
    return Markup(f"<pre>{html.text(text)}</pre>")

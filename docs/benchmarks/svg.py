"""Plots as SVG text: horizontal bars in panels, and lines over a linear or a logarithmic axis."""

import math
from html import escape

OURS = ("mempool", "netreserve", "tcp_1500")
COLOURS = ("#0b6e4f", "#c1666b", "#4a6fa5", "#d4a017", "#7d5ba6", "#5c5c5c", "#e07b39", "#2a9d8f")
STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:13px}"
    ".axis{stroke:#999}.grid{stroke:#ddd}"
)


def _document(width, height, parts):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x, y, text, anchor="start", css=""):
    css = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}>{escape(str(text))}</text>'


def _line(x1, y1, x2, y2, css):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def _short(value):
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def bars(unit, panels, most=None):
    """`panels` are (title, {subject: figure}); ours are green. `most` is the end of each axis."""
    left, bar, width, row = 210, 480, 760, 18
    parts, y = [_text(16, 22, unit, css="title")], 34
    for title, figures in panels:
        y += 22
        parts.append(_text(16, y, title))
        scale = bar / (most or max(figures.values()) or 1)
        for subject, figure in figures.items():
            y += row
            colour = COLOURS[0] if subject.startswith(OURS) else COLOURS[2]
            parts.append(_text(left - 8, y, subject, "end"))
            parts.append(
                f'<rect x="{left}" y="{y - 11}" width="{max(figure * scale, 1):.1f}" height="13" '
                f'fill="{colour}"/>'
            )
            parts.append(_text(left + figure * scale + 5, y, _short(figure)))
        y += 8
    return _document(width, y + 14, parts)


def lines(title, xlabel, ylabel, series, log_x):
    """`series` are {subject: [(x, y)]}. The vertical axis is logarithmic where figures differ much."""
    width, height, left, right, top, bottom = 760, 420, 70, 230, 44, 50
    points = [point for line in series.values() for point in line]
    xs = sorted({x for x, _ in points})
    highest = max(y for _, y in points)
    log_y = highest > 8 * min(max(y for _, y in line) for line in series.values())
    low = 10 ** math.floor(math.log10(min(y for _, y in points))) if log_y else 0
    high = 10 ** math.ceil(math.log10(highest)) if log_y else _round_up(highest)

    def across(x):
        at, first, last = (math.log2(v) if log_x else v for v in (x, xs[0], xs[-1]))
        return left + (width - left - right) * (at - first) / (last - first)

    def up(y):
        at, first, last = (math.log10(v) if log_y else v for v in (y, low, high))
        return height - bottom - (height - top - bottom) * (at - first) / (last - first)

    ticks = [low * 10**i for i in range(round(math.log10(high / low)) + 1)] if log_y else [
        high * i / 5 for i in range(6)
    ]
    parts = [_text(16, 22, title, css="title"), _text(left, top - 6, ylabel)]
    for tick in ticks:
        parts.append(_line(left, up(tick), width - right, up(tick), "grid"))
        parts.append(_text(left - 6, up(tick) + 4, _short(tick), "end"))
    for x in xs:
        parts.append(_line(across(x), height - bottom, across(x), height - bottom + 4, "axis"))
        parts.append(_text(across(x), height - bottom + 18, _short(x), "middle"))
    parts.append(_line(left, height - bottom, width - right, height - bottom, "axis"))
    parts.append(_text((left + width - right) / 2, height - 12, xlabel, "middle"))
    for i, (subject, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in sorted(line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.extend(
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>' for x, y in line
        )
        y = top + 10 + 20 * i
        parts.append(f'<rect x="{width - right + 14}" y="{y - 9}" width="12" height="10" fill="{colour}"/>')
        parts.append(_text(width - right + 32, y, subject))
    return _document(width, height, parts)


def _round_up(value):
    magnitude = 10 ** math.floor(math.log10(value))
    return next(step * magnitude for step in (1, 2, 2.5, 5, 10) if step * magnitude >= value)

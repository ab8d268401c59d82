"""The style of the page: light and dark colours, and rules for print."""

from __future__ import annotations

__all__ = ["COLOURS", "STYLE"]

COLOURS = 8
"""The number of colours for several runs, the classes `c0` to `c7`; `c8` is for the other runs."""

_LIGHT = """
--paper:#fdfdfc;--card:#fff;--ink:#1f2328;--soft:#59636e;--rule:#e3e5e8;--grid:#eceef0;--tint:#f4f6f8;--mark:#fff6dd;
--good:#1a6b3c;--bad:#a8321e;--heat:35,98,161;
--c0:#2362a1;--c1:#b8500f;--c2:#2b7a4b;--c3:#8d4a9e;--c4:#a33b50;--c5:#0f7582;--c6:#7a6410;--c7:#5b5fc7;--c8:#9aa2ab"""
_DARK = """
--paper:#14171a;--card:#1a1e22;--ink:#e4e7eb;--soft:#a3adb8;--rule:#30363d;--grid:#272c32;--tint:#20252a;--mark:#3a3218;
--good:#6fce96;--bad:#f29483;--heat:122,176,235;
--c0:#7ab0eb;--c1:#f0a060;--c2:#74c795;--c3:#cf9ade;--c4:#ec8fa0;--c5:#5fc4d0;--c6:#d3bb5c;--c7:#a5a8f5;--c8:#6b747d"""

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",
"Helvetica Neue","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main{max-width:1120px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:26px;line-height:1.25;font-weight:650;letter-spacing:-.01em;margin:0 0 6px}
h2{font-size:17px;font-weight:650;margin:44px 0 14px;padding-bottom:6px;border-bottom:1px solid var(--rule)}
h3{font-size:15px;font-weight:650;margin:26px 0 8px}
p{margin:6px 0}
.verdict{font-size:17px;max-width:90ch}
.verdict code{font-size:.82em}
.verdict b{font-weight:650}
.good{color:var(--good)}.bad{color:var(--bad)}.soft{color:var(--soft)}
.facts{display:flex;flex-wrap:wrap;gap:1px;margin:24px 0 0;
border:1px solid var(--rule);border-radius:8px;overflow:hidden;background:var(--rule)}
.facts div{flex:1 1 146px;background:var(--card);padding:12px 16px}
.facts dt{color:var(--soft);font-size:13px}
.facts dd{margin:0;font-size:20px;font-weight:600;line-height:1.35}
.facts dd small{display:block;font-size:13px;font-weight:400;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:20px}
figure{margin:0;border:1px solid var(--rule);border-radius:8px;background:var(--card);padding:12px 12px 8px;min-width:0}
figcaption{display:flex;flex-wrap:wrap;gap:2px 16px;align-items:baseline;padding:0 4px 6px;font-size:13px}
figcaption h3{font-size:14px;margin:0 auto 0 0}
.key{display:inline-flex;align-items:center;gap:6px;color:var(--soft)}
.key svg,.swatch{width:22px;height:8px;flex:none}
td .swatch,th .swatch{display:inline-block;margin-inline-end:8px;vertical-align:middle}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 0 14px;padding:0;list-style:none;font-size:13px}
svg{display:block;width:100%;height:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI","Helvetica Neue","Liberation Sans",Arial,sans-serif;
font-variant-numeric:tabular-nums;fill:var(--soft)}
.grid path{stroke:var(--grid);fill:none}.grid .base{stroke:var(--rule)}
.grid .y{text-anchor:end}.grid .x,.grid .unit,.gaps text{text-anchor:middle}
.line{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.faint{stroke-width:1;opacity:.5}.dashed{stroke-dasharray:5 4}.thin{stroke-width:1.2}
.dots circle{fill:currentColor;stroke:transparent;stroke-width:8}
.hover circle{fill:transparent;stroke:transparent;stroke-width:6}
.dots circle:hover,.hover circle:hover{fill:currentColor;stroke:currentColor;stroke-width:4}
svg .gaps text{fill:var(--bad);font-weight:700;font-size:14px}
.best circle{fill:none;stroke:var(--ink);stroke-width:1.6;pointer-events:none}
svg .best text{fill:var(--ink);font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:4px;
pointer-events:none}
.scroll{overflow:auto;border:1px solid var(--rule);border-radius:8px;background:var(--card)}
.tall{max-height:640px}
.scroll:focus-visible{outline:2px solid var(--c0);outline-offset:1px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:13.5px}
caption{caption-side:top;text-align:start;color:var(--soft);font-size:13px;padding:9px 14px 5px}
th,td{padding:5px 14px;text-align:start;vertical-align:top;border-top:1px solid var(--grid);font-weight:400}
thead th{position:sticky;top:0;background:var(--card);border-top:0;border-bottom:1px solid var(--rule);
color:var(--soft);font-size:13px;vertical-align:bottom}
thead span{display:inline-block;width:max-content;max-width:15em;white-space:normal;overflow-wrap:anywhere}
td{white-space:nowrap}
.n{text-align:right;white-space:nowrap}
tbody th{white-space:nowrap}
td.wide,th.wide{white-space:normal;overflow-wrap:anywhere}
tr.marked>*{background:var(--mark)}
tr.total>*{font-weight:600}
.tag{display:inline-block;font-size:12px;line-height:1.5;padding:0 7px;border-radius:9px;border:1px solid currentColor;
color:var(--soft)}
.tag.good{color:var(--good)}.tag.bad{color:var(--bad)}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:20px;align-items:start}
.two h3{margin-top:0}
.matrix{width:auto;margin:0 14px 10px}.matrix caption{padding-inline:0;white-space:nowrap}
.matrix td,.matrix th{text-align:right;min-width:52px;padding:6px 10px}
.matrix .hot{color:var(--paper)}
code,pre{font:12.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
footer{margin-top:48px;color:var(--soft);font-size:13px}
@media(max-width:560px){main{padding:24px 14px 48px}svg text{font-size:14px}h1{font-size:22px}}
@media print{@page{margin:14mm}
body,figure,.scroll,.facts div,thead th{background:#fff}main{max-width:none;padding:0}body{font-size:11pt}
.scroll{max-height:none;overflow:visible}
figure,.facts,tr,h2,h3{break-inside:avoid}h2,h3{break-after:avoid}.charts{grid-template-columns:1fr 1fr;gap:10px}
.two{grid-template-columns:1fr}thead th{position:static}*{print-color-adjust:exact;
-webkit-print-color-adjust:exact}}
"""

_CLASSES = "".join(f".c{number}{{color:var(--c{number})}}" for number in range(COLOURS + 1))

STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    f"{_RULES}{_CLASSES}"
).replace("\n", "")
"""The whole style sheet. It names no file and no address."""

// How the report page looks: one style sheet, light and dark, wide, narrow and printed.

export const STYLE = `
:root { color-scheme: light dark; --ground: #fafaf7; --card: #fff; --ink: #1c1f22; --soft: #5d6269; --line: #dedfd9; --accent: #0a6b72; --second: #a34d00; --good: #1d6b35; --bad: #a3261a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1b1f23; --ink: #e8e8e5; --soft: #a2a8af; --line: #30363c; --accent: #56c6cc; --second: #f0a35c; --good: #74cf8d; --bad: #f58b7c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2.25rem 1.25rem 4rem; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -.015em; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.75rem 0 .75rem; }
p { margin: .35rem 0; }
.soft { color: var(--soft); }
.outcome { display: inline-block; padding: 0 .6rem; border: 1px solid currentColor; border-radius: 1rem; font-weight: 600; font-size: .9rem; }
.outcome.done { color: var(--good); } .outcome.failed { color: var(--bad); } .outcome.stopped, .outcome.way { color: var(--accent); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .65rem .85rem; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.4rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1.25rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem .75rem .5rem; }
figcaption { font-weight: 600; padding: 0 .25rem .4rem; }
figcaption small { color: var(--soft); font-weight: 400; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--soft); } svg .y { text-anchor: end; } svg .x { text-anchor: middle; } svg .x.name { text-anchor: end; }
.grid { stroke: var(--line); fill: none; }
.line { fill: none; stroke: var(--accent); stroke-width: 1.1; stroke-linejoin: round; } .line.test { stroke-width: 2; }
circle { fill: var(--accent); } .test { --accent: var(--second); }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 4; opacity: .7; } .mark.lost { stroke: var(--bad); stroke-dasharray: none; opacity: .9; }
.key { display: inline-block; width: .7em; height: .7em; border-radius: .2em; margin: 0 .35em 0 .9em; background: var(--accent); } .key.lost { background: var(--bad); width: .15em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .38rem 1rem .38rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; font-size: .85rem; white-space: nowrap; }
tbody th, tbody td { white-space: nowrap; } tbody th { font-weight: 500; }
td.number, th.number { text-align: right; white-space: nowrap; }
tbody td.long { white-space: normal; overflow-wrap: anywhere; min-width: 16rem; }
.bar { display: flex; height: 1.4rem; border-radius: .35rem; overflow: hidden; }
.bar span { min-width: 1px; } .data { background: #b58a00; } .compute { background: #0a6b72; } .wait { background: #9aa0a6; } .allreduce { background: #7a4fb5; } .apply { background: #c2571a; }
.names { display: flex; flex-wrap: wrap; gap: .15rem 1.25rem; margin: .5rem 0 0; padding: 0; list-style: none; font-size: .92rem; }
.names i { display: inline-block; width: .75em; height: .75em; border-radius: .2em; margin-right: .4em; }
code { font: .88em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; overflow-x: auto; }
footer { margin-top: 3rem; color: var(--soft); font-size: .9rem; }
@media (max-width: 40rem) { svg { font-size: 20px; } .line { stroke-width: 2; } .line.test { stroke-width: 3; } circle { r: 5px; } .mark { stroke-width: 2; } }
@media print { body { max-width: none; padding: 0; background: #fff; } figure, .tiles div { break-inside: avoid; } }
`;

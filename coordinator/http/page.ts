// The page at `/`: what the run is doing now, from /api/run, once a second. Three strings, no dependency, no build; works
// offline, in light and dark, narrow and wide. It says when what it shows is stale. Text is only ever set as text, never as HTML.

export const PAGE_STYLE = `
  :root { color-scheme: light dark; --ground: #fafaf7; --card: #fff; --ink: #1c1f22; --soft: #5d6269; --line: #dedfd9; --accent: #0a6b72; --good: #1d6b35; --bad: #a3261a; }
  @media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1b1f23; --ink: #e8e8e5; --soft: #a2a8af; --line: #30363c; --accent: #56c6cc; --good: #74cf8d; --bad: #f58b7c; } }
  * { box-sizing: border-box; }
  body { margin: 0 auto; max-width: 64rem; padding: 1.75rem 1.25rem 3rem; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
  header { display: flex; flex-wrap: wrap; gap: .25rem .9rem; align-items: baseline; }
  h1 { font-size: 1.5rem; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
  #run { color: var(--soft); overflow-wrap: anywhere; }
  #state { margin: .6rem 0 1rem; }
  #phase { display: inline-block; padding: 0 .6rem; margin-right: .5rem; border: 1px solid currentColor; border-radius: 1rem; color: var(--accent); font-weight: 600; font-size: .9rem; }
  #phase[data-tone=good] { color: var(--good); }
  #phase[data-tone=bad] { color: var(--bad); }
  #stale, #alarms { margin: 0 0 1rem; padding: .5rem .75rem; border: 1px solid var(--bad); border-radius: .4rem; color: var(--bad); font-weight: 600; }
  .is-stale main { opacity: .55; }
  progress { display: block; width: 100%; height: .55rem; border: 0; border-radius: .3rem; overflow: hidden; background: var(--line); accent-color: var(--accent); }
  progress::-webkit-progress-bar { background: var(--line); }
  progress::-webkit-progress-value { background: var(--accent); }
  progress::-moz-progress-bar { background: var(--accent); }
  dl { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .75rem; margin: 1rem 0 0; }
  @media (max-width: 40rem) { dl { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
  dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
  dt { color: var(--soft); font-size: .85rem; }
  dd { margin: 0; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
  dd small { display: inline-block; font-size: .9rem; color: var(--soft); }
  .scroll { overflow-x: auto; margin-top: 2rem; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
  th, td { text-align: left; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
  thead th { color: var(--soft); font-weight: 500; font-size: .85rem; }
  tbody th { font-weight: 500; }
  td.none { color: var(--soft); }
  td[data-state=lost] { color: var(--bad); font-weight: 600; }
  footer { margin-top: 2rem; color: var(--soft); font-size: .9rem; }
  a { color: var(--accent); }
`;

export const PAGE_SCRIPT = `
  'use strict';
  const REFRESH_MS = 1000;
  const TIMEOUT_MS = 3000;
  const NONE = '\\u2013';
  const at = (id) => document.getElementById(id);
  // Only what changed is set: a screen reader is told of changes, not of every second.
  const say = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };
  const number = (x, digits) => x === null ? NONE : x.toFixed(digits);
  const whole = (x) => Math.round(x).toLocaleString('en-US');
  const percent = (x) => x === null ? NONE : (100 * x).toFixed(1) + ' %';
  const two = (n) => String(n).padStart(2, '0');
  const time = (seconds) => {
    if (seconds === null) return NONE;
    const s = Math.round(seconds);
    if (s < 60) return s + ' s';
    if (s < 3600) return Math.floor(s / 60) + ' min ' + two(s % 60) + ' s';
    return Math.floor(s / 3600) + ' h ' + two(Math.floor(s % 3600 / 60)) + ' min';
  };
  const rows = (id, lists, none) => {
    const columns = at(id).closest('table').querySelectorAll('thead th').length;
    const made = lists.map((cells) => {
      const row = document.createElement('tr');
      cells.forEach((text, i) => {
        const cell = document.createElement(i === 0 ? 'th' : 'td');
        if (i === 0) cell.scope = 'row';
        cell.textContent = text;
        if (text === 'lost') cell.dataset.state = 'lost';
        row.append(cell);
      });
      return row;
    });
    if (made.length === 0) {
      const row = document.createElement('tr');
      const cell = document.createElement('td');
      cell.colSpan = columns;
      cell.className = 'none';
      cell.textContent = none;
      row.append(cell);
      made.push(row);
    }
    at(id).replaceChildren(...made);
  };
  const TONES = { done: 'good', failed: 'bad', stopped: 'bad' };
  let phase = '';
  let heardAt = null;
  const show = (run) => {
    phase = run.phase;
    document.title = run.job + ' \\u00b7 ' + run.phase + ' \\u00b7 epoch ' + run.epoch + ' of ' + run.epochs;
    say('job', run.job);
    say('run', run.run);
    say('phase', run.phase);
    at('phase').dataset.tone = TONES[run.phase] || '';
    say('because', run.because);
    say('alarms', run.alarms.map((a) => 'The ' + a.part + ' cannot be written: ' + a.because).join('; '));
    at('alarms').hidden = run.alarms.length === 0;
    at('progress').value = run.steps === 0 ? 0 : run.step / run.steps;
    say('epoch', String(run.epoch));
    say('epochs', 'of ' + run.epochs);
    say('step', whole(run.step));
    say('steps', 'of ' + whole(run.steps));
    say('loss', number(run.epochLoss === null ? run.loss : run.epochLoss, 4));
    say('accuracy', percent(run.accuracy));
    say('testLoss', number(run.testLoss, 4));
    say('testAccuracy', percent(run.testAccuracy));
    say('speed', run.imagesPerSecond > 0 ? whole(run.imagesPerSecond) : NONE);
    say('left', time(run.secondsLeft));
    say('elapsed', time(run.secondsElapsed));
    say('generation', String(run.generation));
    say('checkpoint', run.checkpointStep === null ? NONE : 'step ' + whole(run.checkpointStep));
    say('transport', run.transport);
    say('pid', run.coordinator.pid + ' on ' + run.coordinator.host);
    rows('workers', run.workers.map((w) => [
      w.id, w.rank === null ? NONE : w.rank, w.state, w.device === null ? NONE : w.device,
      w.rssBytes === null ? NONE : whole(w.rssBytes / 1e6) + ' MB', w.host, w.pid,
    ]), 'No worker has joined yet.');
    rows('byEpoch', run.byEpoch.map((e) => [
      e.epoch, number(e.loss, 4), number(e.testLoss, 4), percent(e.testAccuracy), whole(e.imagesPerSecond), time(e.seconds),
    ]).reverse(), 'No epoch is complete yet.');
  };
  const refresh = async () => {
    let stale = '';
    try {
      const answer = await fetch('/api/run', { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!answer.ok) throw new Error(String(answer.status));
      show(await answer.json());
      heardAt = Date.now();
    } catch {
      const since = heardAt === null ? '' : ' What is shown is ' + time((Date.now() - heardAt) / 1000) + ' old.';
      stale = phase === 'done' || phase === 'stopped' || phase === 'failed'
        ? 'The run is over and its coordinator has ended.'
        : 'The coordinator does not answer.' + since;
    }
    say('stale', stale);
    at('stale').hidden = stale === '';
    document.body.className = stale === '' ? '' : 'is-stale';
    setTimeout(refresh, REFRESH_MS);
  };
  refresh();
`;

export const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lockstep</title>
<link rel="icon" href="data:,">
<style>${PAGE_STYLE}</style>
</head>
<body>
<header><h1 id="job">Lockstep</h1><span id="run"></span></header>
<p id="state" role="status"><span id="phase">connecting</span><span id="because"></span></p>
<p id="stale" role="alert" hidden></p>
<p id="alarms" role="alert" hidden></p>
<noscript><p>This page needs JavaScript; <a href="/api/run">/api/run</a> has the same as JSON.</p></noscript>
<main>
  <progress id="progress" max="1" value="0" aria-label="Steps done"></progress>
  <dl>
    <div><dt>Epoch</dt><dd><span id="epoch">–</span> <small id="epochs"></small></dd></div>
    <div><dt>Step</dt><dd><span id="step">–</span> <small id="steps"></small></dd></div>
    <div><dt>Epoch loss</dt><dd id="loss">–</dd></div>
    <div><dt>Epoch accuracy</dt><dd id="accuracy">–</dd></div>
    <div><dt>Test loss</dt><dd id="testLoss">–</dd></div>
    <div><dt>Test accuracy</dt><dd id="testAccuracy">–</dd></div>
    <div><dt>Images a second</dt><dd id="speed">–</dd></div>
    <div><dt>Time left</dt><dd id="left">–</dd></div>
  </dl>
  <div class="scroll" role="region" aria-label="Workers" tabindex="0"><table>
    <caption>Workers</caption>
    <thead><tr><th scope="col">Worker</th><th scope="col">Rank</th><th scope="col">State</th><th scope="col">Device</th><th scope="col">Memory</th><th scope="col">Host</th><th scope="col">Process</th></tr></thead>
    <tbody id="workers"></tbody>
  </table></div>
  <div class="scroll" role="region" aria-label="Epochs" tabindex="0"><table>
    <caption>Epochs</caption>
    <thead><tr><th scope="col">Epoch</th><th scope="col">Loss</th><th scope="col">Test loss</th><th scope="col">Test accuracy</th><th scope="col">Images a second</th><th scope="col">Time</th></tr></thead>
    <tbody id="byEpoch"></tbody>
  </table></div>
</main>
<footer>
  Running for <span id="elapsed">–</span>, generation <span id="generation">–</span>, last checkpoint <span id="checkpoint">–</span>, over <span id="transport">–</span>, coordinator <span id="pid">–</span>.<br>
  For machines: <a href="/metrics">/metrics</a> · <a href="/api/run">/api/run</a> · <a href="/readyz">/readyz</a>
</footer>
<script>${PAGE_SCRIPT}</script>
</body>
</html>
`;

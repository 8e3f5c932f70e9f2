// The page at `/`: what the run is doing now, from /api/run, once a second. One string, no dependency, no build; works
// offline, in light and dark, narrow and wide. Says when what it shows is stale.

export const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lockstep</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; --ground: #fbfbf9; --ink: #1d1f21; --soft: #666a70; --line: #dcdcd6; --accent: #0b6e75; --bad: #a52a1e; }
  @media (prefers-color-scheme: dark) { :root { --ground: #15171a; --ink: #e6e6e3; --soft: #9a9fa6; --line: #2c3036; --accent: #4fc3c9; --bad: #ef7b6c; } }
  * { box-sizing: border-box; }
  body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 3rem; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
  header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; border-bottom: 1px solid var(--line); padding-bottom: .75rem; }
  h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
  #state { color: var(--soft); }
  #state.stale { color: var(--bad); font-weight: 600; }
  dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1rem; margin: 1.25rem 0; }
  dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
  progress { width: 100%; height: .6rem; accent-color: var(--accent); }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
  th { color: var(--soft); font-weight: 500; font-size: .85rem; }
  footer { margin-top: 2rem; color: var(--soft); font-size: .9rem; } a { color: var(--accent); }
</style>
</head>
<body>
<header><h1 id="job">Lockstep</h1><span id="state" role="status" aria-live="polite">connecting</span></header>
<main>
  <p><progress id="progress" max="1" value="0" aria-label="Steps done"></progress></p>
  <dl>
    <div><dt>Epoch</dt><dd id="epoch">–</dd></div>
    <div><dt>Step</dt><dd id="step">–</dd></div>
    <div><dt>Loss</dt><dd id="loss">–</dd></div>
    <div><dt>Accuracy</dt><dd id="accuracy">–</dd></div>
    <div><dt>Test accuracy</dt><dd id="test">–</dd></div>
    <div><dt>Images a second</dt><dd id="speed">–</dd></div>
    <div><dt>Time left</dt><dd id="left">–</dd></div>
  </dl>
  <h2>Workers</h2>
  <div class="scroll"><table><thead><tr><th>Worker</th><th>Rank</th><th>State</th><th>Memory</th><th>Host</th><th>Process</th><th>Device</th></tr></thead><tbody id="workers"></tbody></table></div>
  <h2>Epochs</h2>
  <div class="scroll"><table><thead><tr><th>Epoch</th><th>Loss</th><th>Test loss</th><th>Test accuracy</th><th>Images/s</th></tr></thead><tbody id="epochs"></tbody></table></div>
</main>
<footer>For machines: <a href="/metrics">/metrics</a> · <a href="/api/run">/api/run</a> · <a href="/readyz">/readyz</a></footer>
<script>
  'use strict';
  const at = (id) => document.getElementById(id);
  const number = (x, digits) => x === null || x === undefined ? '–' : x.toFixed(digits);
  const percent = (x) => x === null || x === undefined ? '–' : (100 * x).toFixed(1) + ' %';
  const time = (s) => s === null ? '–' : s < 60 ? Math.round(s) + ' s' : Math.floor(s / 60) + ' min ' + String(Math.round(s % 60)).padStart(2, '0') + ' s';
  const rows = (body, lists) => body.replaceChildren(...lists.map((cells) => {
    const row = document.createElement('tr');
    for (const text of cells) { const cell = document.createElement('td'); cell.textContent = text; row.append(cell); }
    return row;
  }));
  let ended = false;
  async function refresh() {
    const state = at('state');
    try {
      const answer = await fetch('/api/run', { signal: AbortSignal.timeout(3000) });
      const run = await answer.json();
      document.title = run.job + ' · epoch ' + run.epoch;
      at('job').textContent = run.job;
      state.textContent = run.phase + ' · ' + run.because;
      state.className = '';
      ended = run.phase === 'done' || run.phase === 'stopped' || run.phase === 'failed';
      at('progress').value = run.step / run.steps;
      at('epoch').textContent = run.epoch + ' of ' + run.epochs;
      at('step').textContent = run.step + ' of ' + run.steps;
      at('loss').textContent = number(run.epochLoss ?? run.loss, 4);
      at('accuracy').textContent = percent(run.accuracy);
      at('test').textContent = percent(run.testAccuracy);
      at('speed').textContent = Math.round(run.imagesPerSecond).toLocaleString('en-US');
      at('left').textContent = time(run.secondsLeft);
      rows(at('workers'), run.workers.map((w) => [w.id, w.rank ?? '–', w.state, w.rssBytes === null ? '–' : Math.round(w.rssBytes / 1e6) + ' MB', w.host, w.pid, w.device ?? '–']));
      rows(at('epochs'), run.byEpoch.map((e) => [e.epoch, number(e.loss, 4), number(e.testLoss, 4), percent(e.testAccuracy), Math.round(e.imagesPerSecond).toLocaleString('en-US')]).reverse());
    } catch {
      state.textContent = ended ? 'the run has ended' : 'no answer from the coordinator: what is shown is stale';
      state.className = 'stale';
    }
    setTimeout(refresh, 1000);
  }
  refresh();
</script>
</body>
</html>
`;

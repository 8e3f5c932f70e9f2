// A run as one HTML page to hand to a colleague: how well, how it went, where the time went, who took part, what with, how to get the
// same bits again. One file without scripts, fonts or requests; every text of the run's is shown as text. Pure.

import type { RunStory } from '../../coordinator/main.ts';
import type { PhaseSeconds } from '../../protocol/messages.ts';
import { bytes, counted, duration, grouped, percent } from '../terminal/text.ts';
import { chart, escaped, type Point } from './curve.ts';
import { eventsOf, type StoryEvent } from './events.ts';
import { STYLE } from './style.ts';

/** Events shown one by one; of more the first and the last. */
const EVENTS_MAX = 200;
/** Steps that one point of the throughput stands for, at least. */
const SPEED_STRETCH = 10;
const SPEED_POINTS = 200;

const PHASES: readonly (readonly [keyof PhaseSeconds, string])[] = [
  ['data', 'data'],
  ['compute', 'forward and backward'],
  ['wait', 'waiting for slower workers'],
  ['allreduce', 'all-reduce'],
  ['apply', 'update'],
];

const OUTCOMES = { done: 'Done', stopped: 'Stopped', failed: 'Failed' } as const;

/** @param madeAt Unix time in milliseconds */
export function reportPage(story: RunStory, madeAt: number): string {
  const begun = story.records.find((record) => record.kind === 'run');
  const job = story.report?.job ?? begun?.config.jobName ?? 'a run';
  const body = [
    heading(story, job),
    tiles(story),
    curves(story),
    epochs(story),
    breakdown(story),
    history(eventsOf(story.records)),
    configuration(story),
    again(story),
    `<footer>Made by Lockstep ${escaped(story.report?.lockstep ?? begun?.lockstep ?? '')} on ${instant(madeAt)} from <code>${escaped(story.directory)}</code>${story.unread === 0 ? '' : `; ${escaped(counted(story.unread, 'line'))} of its record could not be read`}.</footer>`,
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="content-security-policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(job)}: a run of Lockstep</title>
<style>${STYLE}</style>
</head>
<body>
${body.filter((part) => part !== '').join('\n')}
</body>
</html>
`;
}

function instant(at: number): string {
  const iso = new Date(at).toISOString();
  return `<time datetime="${iso}">${iso.slice(0, 19).replace('T', ' ')} UTC</time>`;
}

function heading({ report, isUnderWay, records, steps }: RunStory, job: string): string {
  const [kind, word] =
    report !== null
      ? [report.state, OUTCOMES[report.state]]
      : isUnderWay
        ? ['way', 'Under way']
        : ['failed', 'Cut off'];
  const first = records[0]?.t;
  const last = records.at(-1)?.t;
  const when =
    first === undefined || last === undefined ? '' : `${instant(Date.parse(first))} to ${instant(Date.parse(last))}`;
  const done = report?.steps ?? steps.at(-1)?.step ?? 0;
  const failure = records.findLast((record) => record.kind === 'failed');
  const because = failure === undefined || report?.state !== 'failed' ? '' : `<p>${escaped(failure.cause.message)}</p>`;
  return `<header><h1>${escaped(job)}</h1>
<p><span class="outcome ${kind}">${word}</span> after ${escaped(counted(done, 'step'))} <span class="soft">· ${when}</span></p>${because}</header>`;
}

function tiles({ report, steps }: RunStory): string {
  const shown: [string, string][] = [];
  const last = steps.at(-1);
  if (report !== null && report.testAccuracy !== null) shown.push(['Test accuracy', percent(report.testAccuracy)]);
  if (report !== null && report.testLoss !== null) shown.push(['Test loss', report.testLoss.toFixed(4)]);
  const loss = report?.finalLoss ?? last?.loss ?? null;
  if (loss !== null) shown.push(['Training loss', loss.toFixed(4)]);
  if (report !== null) {
    shown.push(['Throughput', `${grouped(report.imagesPerSecond)} /s`]);
    shown.push(['Time', duration(report.seconds)]);
    shown.push(['Workers', grouped(report.byWorker.length)]);
    if (report.workersLost > 0) shown.push(['Workers lost', grouped(report.workersLost)]);
    shown.push(['Steps lost', grouped(report.stepsLost)]);
  }
  const list = shown.map(([name, value]) => `<div><dt>${escaped(name)}</dt><dd>${escaped(value)}</dd></div>`);
  return list.length === 0 ? '' : `<dl class="tiles">${list.join('')}</dl>`;
}

/** Samples a second of stretches of steps. */
function speedOf(steps: RunStory['steps']): Point[] {
  const stretch = Math.max(SPEED_STRETCH, Math.ceil(steps.length / SPEED_POINTS));
  return Array.from({ length: Math.floor(steps.length / stretch) }, (_, i) => {
    const these = steps.slice(i * stretch, (i + 1) * stretch);
    const seconds = these.reduce((sum, step) => sum + step.seconds, 0);
    const samples = these.reduce((sum, step) => sum + step.samples, 0);
    return { x: these.at(-1)?.step ?? 0, y: samples / seconds };
  });
}

function curves({ steps, records }: RunStory): string {
  const epochsAt = records.flatMap((record) =>
    record.kind === 'epoch' ? [{ x: record.step, title: `end of epoch ${record.epoch}`, kind: 'epoch' }] : [],
  );
  const lostAt = records.flatMap((record) =>
    record.kind === 'lost'
      ? [{ x: record.step, title: `${record.worker} lost: ${record.cause.message}`, kind: 'lost' }]
      : [],
  );
  const marks = [...epochsAt, ...lostAt];
  const tested = (of: 'testLoss' | 'testAccuracy'): Point[] =>
    records.flatMap((record) => {
      const value = record.kind === 'epoch' ? record[of] : null;
      return record.kind === 'epoch' && value !== null ? [{ x: record.step, y: value }] : [];
    });
  const trained = steps.map(({ step, loss }) => ({ x: step, y: loss ?? Number.NaN }));
  const figure = (title: string, key: string, drawing: string | null): string =>
    drawing === null ? '' : `<figure><figcaption>${title} <small>${key}</small></figcaption>${drawing}</figure>`;
  const key = (kind: string, name: string): string => `<span class="key ${kind}"></span>${name}`;
  const lossOfTests = tested('testLoss');
  const lost = lostAt.length === 0 ? '' : key('lost', 'a worker lost');
  const found = [
    figure(
      'Loss',
      `${key('train', 'training')}${lossOfTests.length === 0 ? '' : key('test', 'test')}${lost}`,
      chart({
        description: `Training loss by step, from ${trained[0]?.y.toFixed(3)} to ${trained.at(-1)?.y.toFixed(3)}`,
        lines: [
          { name: 'train', points: trained },
          { name: 'test', points: lossOfTests, dots: true },
        ],
        xName: 'step',
        yText: (value) => String(value),
        marks,
      }),
    ),
    figure(
      'Test accuracy',
      '',
      chart({
        description: 'Test accuracy after each epoch',
        lines: [{ name: 'test', points: tested('testAccuracy'), dots: true }],
        xName: 'step',
        yText: (value) => `${Number((100 * value).toFixed(6))} %`,
        marks: epochsAt,
      }),
    ),
    figure(
      'Throughput',
      lost,
      chart({
        description: 'Training samples a second',
        lines: [{ name: 'train', points: speedOf(steps) }],
        xName: 'step',
        yText: grouped,
        marks: lostAt,
      }),
    ),
  ].filter((one) => one !== '');
  return found.length === 0 ? '' : `<h2>How it went</h2>\n${found.join('\n')}`;
}

interface Column {
  readonly name: string;
  readonly isNumber?: boolean;
  readonly isLong?: boolean;
}

function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const head = columns.map(
    ({ name, isNumber }) => `<th scope="col"${isNumber === true ? ' class="number"' : ''}>${escaped(name)}</th>`,
  );
  const body = rows.map((row) => {
    const cells = row.map((cell, i) => {
      const { isNumber = false, isLong = false } = columns[i] ?? {};
      const kind = isNumber ? ' class="number"' : isLong ? ' class="long"' : '';
      return i === 0 ? `<th scope="row"${kind}>${cell}</th>` : `<td${kind}>${cell}</td>`;
    });
    return `<tr>${cells.join('')}</tr>`;
  });
  return `<div class="scroll"><table><thead><tr>${head.join('')}</tr></thead><tbody>${body.join('')}</tbody></table></div>`;
}

function epochs({ report }: RunStory): string {
  if (report === null || report.byEpoch.length === 0) return '';
  const rows = report.byEpoch.map((epoch) => [
    String(epoch.epoch),
    epoch.loss.toFixed(4),
    epoch.testLoss === null ? '–' : epoch.testLoss.toFixed(4),
    epoch.testAccuracy === null ? '–' : percent(epoch.testAccuracy),
    grouped(epoch.imagesPerSecond),
    duration(epoch.seconds),
  ]);
  const names = ['epoch', 'training loss', 'test loss', 'test accuracy', 'samples/s', 'time'];
  return `<h2>Epochs</h2>\n${table(
    names.map((name, i) => ({ name, isNumber: i > 0 })),
    rows.map((row) => row.map(escaped)),
  )}`;
}

const milliseconds = (seconds: number): string => `${(1000 * seconds).toFixed(seconds < 0.1 ? 2 : 0)} ms`;

function breakdown({ report }: RunStory): string {
  if (report === null) return '';
  const total = PHASES.reduce((sum, [phase]) => sum + report.stepSeconds[phase], 0);
  if (!(total > 0)) return '';
  const share = (phase: keyof PhaseSeconds): number => report.stepSeconds[phase] / total;
  const bar = PHASES.map(
    ([phase, name]) =>
      `<span class="${phase}" style="flex:${share(phase).toFixed(4)}" title="${escaped(name)}"></span>`,
  );
  const names = PHASES.map(
    ([phase, name]) =>
      `<li><i class="${phase}"></i>${escaped(name)} ${milliseconds(report.stepSeconds[phase])} <span class="soft">${percent(share(phase))}</span></li>`,
  );
  const workers =
    report.byWorker.length < 2
      ? ''
      : table(
          [{ name: 'worker' }, { name: 'host' }, ...PHASES.map(([, name]) => ({ name, isNumber: true }))],
          report.byWorker.map(({ worker, host, stepSeconds }) => [
            escaped(worker),
            escaped(host),
            ...PHASES.map(([phase]) => milliseconds(stepSeconds[phase])),
          ]),
        );
  const straggler =
    report.straggler === null ? '' : `<p>${escaped(`${report.straggler.worker}: ${report.straggler.because}`)}</p>`;
  return `<h2>Where a step’s ${milliseconds(total)} go</h2>
<div class="bar" aria-hidden="true">${bar.join('')}</div>
<ul class="names">${names.join('')}</ul>${straggler}
${workers}`;
}

function history(events: readonly StoryEvent[]): string {
  const half = EVENTS_MAX / 2;
  const shown = events.length <= EVENTS_MAX ? events : [...events.slice(0, half), ...events.slice(-half)];
  const left = events.length - shown.length;
  const rows = shown.map(({ at, step, what, detail }) => [
    instant(at),
    step === null ? '' : grouped(step),
    escaped(what),
    escaped(detail),
  ]);
  const note = left === 0 ? '' : `<p class="soft">${escaped(counted(left, 'event'))} in between are left out.</p>`;
  return `<h2>Who took part</h2>\n${note}${table(
    [{ name: 'when' }, { name: 'after step', isNumber: true }, { name: 'what' }, { name: '', isLong: true }],
    rows,
  )}`;
}

function configuration({ report, records }: RunStory): string {
  const begun = records.findLast((record) => record.kind === 'run');
  const rows: [string, string][] = [];
  if (begun !== undefined) {
    const { config } = begun;
    rows.push(
      ['job', `${config.jobName} (SHA-256 ${config.job.sha256.slice(0, 16)}…)`],
      ['seed', String(config.seed)],
      ['batch size', `${grouped(config.globalBatch)} in ${grouped(config.microbatches)} microbatches`],
      ['learning rate', String(config.learningRate)],
      ['epochs', grouped(config.epochs)],
      ['steps', grouped(config.steps)],
      ['training samples', grouped(config.trainSamples)],
      ['test samples', grouped(config.testSamples)],
      ['precision', config.precision],
      ['gradient compression', config.gradientCompression],
      [
        'digests compared',
        config.digestEverySteps === 0 ? 'never' : `every ${counted(config.digestEverySteps, 'step')}`,
      ],
    );
  }
  if (report !== null) {
    const { engine } = report;
    rows.push(
      ['augmentation', report.augment],
      ['data set', report.dataSet.name],
      ['engine', `${engine.name}: ${engine.library}`],
      ['device', `${engine.device}, ${counted(engine.threads, 'thread')} a worker`],
      ...Object.entries(engine.settings).map(([name, value]): [string, string] => [`engine: ${name}`, value]),
      ['fingerprint', engine.fingerprint],
      ['transport', report.transport],
      ...report.traffic.map(({ transport, bytes: sent }): [string, string] => [`sent over ${transport}`, bytes(sent)]),
      [
        'peak memory',
        `${bytes(report.peakRssBytes.coordinator)} the coordinator, ${bytes(Math.max(0, ...report.peakRssBytes.workers))} the largest worker`,
      ],
      ['Lockstep', report.lockstep],
    );
  }
  if (rows.length === 0) return '';
  return `<h2>With what</h2>\n${table(
    [{ name: 'setting' }, { name: 'value', isLong: true }],
    rows.map((row) => row.map(escaped)),
  )}`;
}

function again({ report, records }: RunStory): string {
  const digest = report?.digest ?? records.findLast((record) => record.kind === 'checkpoint')?.digest ?? null;
  if (digest === null) return '';
  const whose = report?.digest === digest ? 'the final weights' : 'the last checkpoint';
  const said =
    report === null || report.reproducible
      ? 'The same digest comes out with any number of workers, whoever is lost on the way, from the same job, seed and engine fingerprint.'
      : report.jobChanges.length > 0
        ? 'It can not be had again in one go: the job was changed on the way.'
        : 'It can not be had again: workers with different engines took part.';
  return `<h2>The same bits again</h2>
<p>SHA-256 of ${whose}:</p>
<pre><code>${escaped(digest)}</code></pre>
<p class="soft">${said}</p>`;
}

import { describe, expect, it } from 'vitest';
import { expositionOf, wantsOpenMetrics } from '../../protocol/exposition.ts';

const TEXT = `# HELP a_total All a, in units.
# TYPE a_total counter
a_total{run="r"} 3

# HELP b B.
# TYPE b gauge
b{text="# TYPE c_total counter"} 1

# HELP d_seconds D.
# TYPE d_seconds histogram
d_seconds_bucket{le="+Inf"} 2
d_seconds_sum 1.5
d_seconds_count 2
`;

describe('OpenMetrics', () => {
  it.each([
    // As Prometheus 2.42 and 3 send it.
    [
      'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
      true,
    ],
    ['application/openmetrics-text; version=1.0.0; charset=utf-8', true],
    ['text/plain;version=0.0.4;q=1,application/openmetrics-text;q=0.5', false],
    ['application/openmetrics-text;q=0', false],
    ['application/openmetrics-text;q=nonsense', false],
    ['text/html,*/*;q=0.8', false],
    ['', false],
    [undefined, false],
  ])('%s: %s', (accept, wanted) => {
    expect(wantsOpenMetrics(accept)).toBe(wanted);
  });

  it('differs in the heads of counters and its end, and has no empty line', () => {
    expect(expositionOf(TEXT, 'application/openmetrics-text')).toEqual({
      contentType: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
      text: `# HELP a All a, in units.
# TYPE a counter
a_total{run="r"} 3
# HELP b B.
# TYPE b gauge
b{text="# TYPE c_total counter"} 1
# HELP d_seconds D.
# TYPE d_seconds histogram
d_seconds_bucket{le="+Inf"} 2
d_seconds_sum 1.5
d_seconds_count 2
# EOF
`,
    });
  });

  it('for nobody who did not ask: the text is as it was', () => {
    expect(expositionOf(TEXT, undefined)).toEqual({
      contentType: 'text/plain; version=0.0.4; charset=utf-8',
      text: TEXT,
    });
  });
});

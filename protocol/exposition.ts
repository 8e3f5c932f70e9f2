// The two forms in which metrics are served: Prometheus's text, and OpenMetrics for who asks for it. What is rendered is the first; the
// second is made of it, since for the kinds of metrics that there are here (counters whose names end in _total, gauges, histograms) the two
// differ in the counters' heads and in the end mark only.

export const TEXT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
export const OPENMETRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

export interface Exposition {
  readonly contentType: string;
  readonly text: string;
}

/** The weight (0 to 1) that an Accept header gives to a media type named in it; 0 where it isn't. */
function weightOf(accept: string, type: string): number {
  const weights = accept.split(',').flatMap((one) => {
    const [name, ...parameters] = one.split(';').map((part) => part.trim().toLowerCase());
    if (name !== type) return [];
    const q = parameters.find((parameter) => parameter.startsWith('q='));
    const weight = q === undefined ? 1 : Number(q.slice(2));
    return [weight >= 0 && weight <= 1 ? weight : 0];
  });
  return Math.max(0, ...weights);
}

/** True for a header that would rather have OpenMetrics than plain text. */
export function wantsOpenMetrics(accept: string | undefined): boolean {
  if (accept === undefined) return false;
  const wish = weightOf(accept, 'application/openmetrics-text');
  return wish > 0 && wish >= weightOf(accept, 'text/plain');
}

/** @param text in Prometheus's format, 0.0.4 */
export function expositionOf(text: string, accept: string | undefined): Exposition {
  if (!wantsOpenMetrics(accept)) return { contentType: TEXT_TYPE, text };
  const heads = text
    .replaceAll(/^# TYPE (\w+)_total counter$/gm, '# TYPE $1 counter')
    .replaceAll(/^# HELP (\w+)_total /gm, '# HELP $1 ')
    .split('\n')
    .filter((line) => line !== '');
  return { contentType: OPENMETRICS_TYPE, text: `${heads.join('\n')}\n# EOF\n` };
}

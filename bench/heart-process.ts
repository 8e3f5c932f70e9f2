// A worker's process as far as its coordinator is concerned: a control link to the coordinator at argv[2], with its heart where argv[3] says
// `heart`. Prints its processor time over argv[4] seconds, once it has settled, and its resident memory.

import { setTimeout as sleep } from 'node:timers/promises';
import { connectControl } from '../worker/control-link.ts';
import { startHeart } from '../worker/heart/heart.ts';
import { PROTOCOL_VERSION } from '../protocol/messages.ts';

const SETTLE_SECONDS = 5;
const [url = '', kind, seconds] = process.argv.slice(2);
const link = await connectControl(url, null, null, kind === 'heart' ? startHeart : null);
const me = { lockstep: '0', node: process.version, host: 'here', pid: process.pid, localRank: null, rejoin: null };
link.send({ kind: 'hello', protocol: PROTOCOL_VERSION, ...me });
await sleep(1000 * SETTLE_SECONDS);
const before = process.cpuUsage();
await sleep(1000 * Number(seconds));
const { user, system } = process.cpuUsage(before);
const cpuShare = (user + system) / 1e6 / Number(seconds);
process.stdout.write(`${JSON.stringify({ cpuShare, rssBytes: process.memoryUsage.rss() })}\n`);
await link.close();

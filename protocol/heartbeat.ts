// Signs of life between a worker and its coordinator, and how long each may miss the other's.
//
// A worker's control link lives in the thread that the engine holds for as long as a microbatch takes: it says nothing meanwhile, for a
// millisecond or for a minute, and no limit tells a long call from a dead process. So each control link has a heart, a second connection
// made by a thread that does nothing else. A process that is stopped stops in all its threads; a long call stops no other.
//
// A heart is known by a key that the worker draws for the link, tells when it joins, and shows again with the heart. One that ends
// takes its link with it. Cost: two small messages a second each way, and the memory of a thread.

import type { SilenceLimits } from './silence.ts';

/** The header that carries the key, on the link and on the heart. */
export const HEART_HEADER = 'lockstep-heart';
export const HEART_PATH = '/heart';
/** A key: 16 random bytes in hexadecimal. */
export const HEART_KEY = /^[0-9a-f]{32}$/;

export const BEAT_EVERY_MS = 500;

/** Beyond two beats the observer was held up itself. */
const lookMostMs = 2 * BEAT_EVERY_MS;

/** Of a worker's heart: four beats, which a thread that has nothing else to do gets in even where many fight for a core. */
export const WORKER_SILENCE: SilenceLimits = { floorMs: 2000, ceilingMs: 30_000, lookMostMs };

/**
 * Of who beats between other work: the coordinator, and peers over NATS, whose links are in the thread that adds. No hurry: no step waits
 * for the coordinator, and it hears of a lost worker first.
 */
export const BUSY_SILENCE: SilenceLimits = { floorMs: 5000, ceilingMs: 30_000, lookMostMs };

/** Of a control link without a heart, and of one over NATS beside its heart: longer than any microbatch. */
export const HEARTLESS_SILENCE_MS = 120_000;

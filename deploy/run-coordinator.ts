// `lockstep coordinator JOB`: the coordinator alone, for workers that are started elsewhere; `lockstep train` starts it too.
// Turns a parsed command into the run's configuration - from the job, the data set's size and, with --resume, the checkpoint -
// opens the run directory and shows what happens on the terminal.

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { startCoordinator } from '../coordinator/main.ts';
import { latestCheckpoint, type Checkpoint } from '../coordinator/record/checkpoint.ts';
import { lastStepOf } from '../coordinator/record/metrics-log.ts';
import { latestRun, openRunDirectory } from '../coordinator/record/run-directory.ts';
import type { JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import type { RunConfig } from '../protocol/run-config.ts';
import { loadJob } from './job-file.ts';
import { fromLauncher } from './launch-messages.ts';
import { resolveRun, type TrainOptions } from './options.ts';
import { readToken } from './run-worker.ts';
import { dataSetDirectory } from './setup/dataset.ts';
import { createDisplay } from './terminal/display.ts';
import { LOCKSTEP_VERSION } from './version.ts';

// `npm run dashboards`: writes the dashboards as JSON, for Grafana's provisioning and to be looked at in a review.

import { writeFileSync } from 'node:fs';
import { files } from './all.ts';

for (const [name, text] of files()) writeFileSync(new URL(`grafana/${name}`, import.meta.url), text);

// Where the heart's thread begins: makes Node read TypeScript there, too, then hands over to thread.ts.

if (!process.features.typescript) (await import('tsx/esm/api')).register();
await import('./thread.ts');

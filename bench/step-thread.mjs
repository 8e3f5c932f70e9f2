// Where the engine's thread of step-thread-process.ts begins: makes Node read TypeScript there, too.

if (!process.features.typescript) (await import('tsx/esm/api')).register();
await import('./step-thread-process.ts');

// Types of bootstrap.mjs, which must be plain JavaScript.

export function nodeProblem(version: string): string | null;
export function ensureNode(version?: string): void;
export function packagesAreCurrent(checkout: string): boolean;
export function ensurePackages(checkout?: string): Promise<void>;
export function registerTypeScript(): Promise<void>;
export function registerCommonTypeScript(): Promise<void>;

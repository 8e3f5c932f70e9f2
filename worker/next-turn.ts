/** Resolves in the event loop's next turn: whatever waits to be heard is heard before. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

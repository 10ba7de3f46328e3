/** The words that start this program again, as source or as a bundle, with the Node that runs it now. */
export function ownProgram(): readonly string[] {
  const [node = process.execPath, main = ''] = process.argv
  return [node, ...process.execArgv, main]
}

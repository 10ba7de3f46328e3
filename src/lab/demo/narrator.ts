/** The voice of the demo: plain sentences, the commands and tables that prove them, and a mark for each check. */

import { styleText } from 'node:util'
import { run } from '../command.ts'
import type { Namespace } from '../topology.ts'

/** Something that the demo claims does not hold. */
export class ClaimFailed extends Error {
  override readonly name = 'ClaimFailed'
}

export class Narrator {
  readonly #write: (text: string) => void
  readonly #signal: AbortSignal
  #act = ''
  #held = 0

  constructor(write: (text: string) => void, signal: AbortSignal) {
    this.#write = write
    this.#signal = signal
  }

  /** The title of the act that is played. */
  get currentAct(): string {
    return this.#act
  }

  /** How many claims were checked and hold. */
  get held(): number {
    return this.#held
  }

  act(title: string): void {
    this.#act = title
    this.#line(
      `\n${styleText(['bold', 'cyan'], `── ${title} ${'─'.repeat(Math.max(0, 96 - title.length))}`)}`,
    )
  }

  /** Prose; each line as it is. @throws when the demo was interrupted: that is where every act looks for it. */
  say(text: string): void {
    this.#signal.throwIfAborted()
    this.#line(`\n${text}`)
  }

  /** Runs a command in a namespace, and shows it as one would type it there. Gives the lines that it printed. */
  async command(where: Namespace, command: string): Promise<string[]> {
    this.#signal.throwIfAborted()
    this.#line(`  ${styleText('dim', `${where.name}#`)} ${styleText('yellow', command)}`)
    return await this.read(where, command)
  }

  /** The same, shown with what it printed. */
  async table(where: Namespace, command: string): Promise<string[]> {
    const lines = await this.command(where, command)
    this.lines(lines.length === 0 ? ['(empty)'] : lines)
    return lines
  }

  /** The same, not shown at all. */
  async read(where: Namespace, command: string): Promise<string[]> {
    const output = await runIn(where, command)
    return output.split('\n').filter((line) => line.trim() !== '')
  }

  /** Shows what is neither prose nor a claim, indented under the command before it. */
  lines(lines: readonly string[]): void {
    for (const line of lines) this.#line(`      ${line.trimEnd()}`)
  }

  /** @throws {ClaimFailed} */
  check(claim: string, holds: boolean, saw = ''): void {
    this.#signal.throwIfAborted()
    if (!holds) {
      this.#line(`  ${styleText('red', '✗')} ${claim}`)
      throw new ClaimFailed(saw === '' ? claim : `${claim}: ${saw}`)
    }
    this.#held++
    this.#line(`  ${styleText('green', '✓')} ${claim}`)
  }

  #line(text: string): void {
    this.#write(`${text}\n`)
  }
}

/** `ip` and `bridge` enter the namespace by themselves; a file is read as it is. */
async function runIn(where: Namespace, command: string): Promise<string> {
  const [program = '', ...words] = command.split(' ')
  return program === 'cat' ? await run(program, words) : await run(program, ['-n', where.namespace, ...words])
}

/** Reads the captures of scripts/capture-vectors.ts. */

import { readdirSync, readFileSync } from 'node:fs'
import { type Message, splitMessages } from '../../src/netlink/message.ts'

const FOLDER = new URL('netlink/', import.meta.url)

export interface Vector {
  readonly command: string
  /** What the command sent. */
  readonly sent: readonly Message[]
  /** What the kernel answered or told. */
  readonly received: readonly Message[]
}

export function readVector(name: string): Vector {
  const [title = '', ...lines] = readFileSync(new URL(`${name}.txt`, FOLDER), 'utf8')
    .trimEnd()
    .split('\n')
  return { command: title.slice('# '.length), sent: messages(lines, '> '), received: messages(lines, '< ') }
}

export function vectorNames(): string[] {
  return readdirSync(FOLDER).map((file) => file.slice(0, -'.txt'.length))
}

function messages(lines: readonly string[], arrow: string): Message[] {
  return lines
    .filter((line) => line.startsWith(arrow))
    .flatMap((line) => splitMessages(Buffer.from(line.slice(arrow.length), 'hex')))
}

/** Tables as `ip` and `kubectl` print them: columns, no lines. */

import { styleText } from 'node:util'
import CliTable from 'cli-table3'

export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new CliTable({
    head: head.map((title) => styleText('bold', title)),
    chars: NO_LINES,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
  })
  table.push(...rows.map((row) => [...row]))
  return trimLines(table.toString())
}

/** Names and values, without a head. */
export function formatFields(fields: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length))
  return fields.map(([name, value]) => `${styleText('dim', name.padEnd(width))}  ${value}`).join('\n')
}

const NO_LINES = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '',
}

function trimLines(text: string): string {
  return text.replace(/[ ]+$/gm, '')
}

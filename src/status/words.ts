/** What an operator reads of operations: the words of `ip` and `bridge`. */

import type { Entry, Failure } from '../state.ts'

export function tellFailure({ operation: { verb, entry }, error }: Failure): string {
  return `${verb} ${nameEntry(entry)} failed: ${error.message}`
}

export function nameEntry(entry: Entry): string {
  switch (entry.kind) {
    case 'link':
      return `link ${entry.name}`
    case 'address':
      return `address ${entry.ip}/${entry.length} dev ${entry.link}`
    case 'nexthop':
      return `nexthop id ${entry.id} via ${entry.gateway} dev ${entry.link}`
    case 'route':
      if (entry.link === undefined) return `route blackhole ${entry.destination}`
      return `route ${entry.destination}${entry.gateway === undefined ? '' : ` via ${entry.gateway}`} dev ${entry.link}`
    case 'neighbour':
      return `neighbour ${entry.ip}${entry.mac === undefined ? '' : ` lladdr ${entry.mac}`} dev ${entry.link}`
    case 'fdb':
      return `FDB entry ${entry.mac} dst ${entry.destination} dev ${entry.link}`
    case 'peer':
      return `peer ${entry.publicKey}${entry.endpoint === undefined ? '' : ` endpoint ${entry.endpoint} port ${entry.port}`} dev ${entry.link}`
    default:
      return entry satisfies never
  }
}

/**
 * The difference between what is desired and what the kernel holds, one key at a time, and the order of the steps.
 *
 * Pure: the same two states give the same operations whatever happened before, so start-up, a lease event, drift and
 * repair are one path.
 */

import type { Entry, FdbEntry, Key, Kind, Link, Neighbour, Operation, Route, Vxlan } from '../state.ts'

/**
 * The step that leads one key from `actual` to `desired`; undefined when there is nothing to do.
 *
 * A link whose difference cannot be changed in place is deleted; the next turn then finds it absent and adds it.
 */
export function diffEntry(
  key: Key,
  desired: Entry | undefined,
  actual: Entry | undefined,
): Operation | undefined {
  if (desired === actual) return undefined
  if (desired === undefined) {
    return actual && { verb: 'delete', key, entry: actual, why: 'not desired' }
  }
  if (actual === undefined) return { verb: 'add', key, entry: desired, why: 'missing' }
  const fixed = desired.kind === 'link' && actual.kind === 'link' ? incompatible(desired, actual) : []
  if (fixed.length > 0) return { verb: 'delete', key, entry: actual, why: fixed.join(', ') }
  const changed = differences(desired, actual)
  if (changed.length === 0) return undefined
  return { verb: 'change', key, entry: desired, actual, why: changed.join(', ') }
}

/**
 * What comes before what, and why: an address and a route need their link up; a route may carry packets from the
 * moment it exists, so the FDB entry and the neighbour that it leads to are there before it, and the nexthop that it
 * names. Removal is the reverse; routes go before their nexthops also because the other way round is quadratic in the
 * kernel. All additions come before all removals, so that a subnet that moves is never without a route.
 */
const ORDER: Readonly<Record<Kind, number>> = {
  link: 0,
  address: 1,
  fdb: 2,
  neighbour: 3,
  nexthop: 4,
  route: 5,
}

/** Buckets and not a sort: at a start there are hundreds of thousands. */
export function orderOperations(operations: readonly Operation[]): Operation[] {
  const ranks: Operation[][] = Array.from({ length: 2 * KINDS }, () => [])
  for (const operation of operations) ranks[rank(operation)]?.push(operation)
  return ranks.flat()
}

const KINDS = Object.keys(ORDER).length

function rank({ verb, entry }: Operation): number {
  return verb === 'delete' ? 2 * KINDS - 1 - ORDER[entry.kind] : ORDER[entry.kind]
}

/** What the kernel cannot change on a live link. */
function incompatible(desired: Link, actual: Link): string[] {
  if (desired.vxlan === undefined) return []
  if (actual.vxlan === undefined) return ['not a vxlan link']
  return compare<Vxlan>(desired.vxlan, actual.vxlan, ['vni', 'port', 'lower', 'group', 'gbp'])
}

function differences(desired: Entry, actual: Entry): string[] {
  switch (desired.kind) {
    case 'link':
      return [
        ...compare<Link>(desired, actual as Link, ['mac', 'mtu', 'up', 'appProbes']),
        ...compareVxlan(desired.vxlan, (actual as Link).vxlan),
      ]
    case 'address':
      return []
    case 'nexthop':
      return compare(desired, actual as typeof desired, ['link', 'gateway'])
    case 'route':
      return compare<Route>(desired, actual as Route, ['link', 'gateway', 'nexthop', 'protocol'])
    case 'neighbour':
      return compare<Neighbour>(desired, actual as Neighbour, ['mac', 'state'])
    case 'fdb':
      return compare<FdbEntry>(desired, actual as FdbEntry, ['destination'])
    default:
      return desired satisfies never
  }
}

function compareVxlan(desired: Vxlan | undefined, actual: Vxlan | undefined): string[] {
  return desired && actual ? compare<Vxlan>(desired, actual, ['local', 'learning']) : []
}

function compare<T extends object>(desired: T, actual: T, fields: readonly (keyof T & string)[]): string[] {
  const found: string[] = []
  for (const field of fields) {
    if (desired[field] === actual[field]) continue
    found.push(`${field} ${String(actual[field] ?? 'unset')}, not ${String(desired[field] ?? 'unset')}`)
  }
  return found
}

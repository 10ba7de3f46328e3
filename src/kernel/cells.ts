/**
 * The two sides of every entry's key: the entry that is desired and the one that the kernel holds. One table for both, so
 * that an entry that is as desired is held once, and their comparison looks nothing up.
 *
 * There is a table for each kind and link, by what tells its entries from each other: texts that the entries have anyway.
 * So no key is put together, hashed and held for each of the hundreds of thousands of entries of a large network.
 */

import type { Mac } from '../address/mac.ts'
import type { Prefix } from '../address/prefix.ts'
import { type Entry, type Key, type Kind, type KernelState, keyOf, MAIN_TABLE } from '../state.ts'

interface MutableCell {
  /** The last entry that was put: it has the key, also when the cell is empty. */
  like: Entry
  desired: Entry | undefined
  actual: Entry | undefined
}

export type Cell = Readonly<MutableCell>

type Side = 'desired' | 'actual'
type Name = string | number
type Table = Map<Name, MutableCell>

export class Cells {
  readonly #tables: Readonly<Record<Kind, Map<Name, Table>>> = {
    link: new Map(),
    address: new Map(),
    nexthop: new Map(),
    route: new Map(),
    neighbour: new Map(),
    fdb: new Map(),
    peer: new Map(),
  }
  #sizes = { desired: 0, actual: 0 }

  /** The cell with the entry's key. */
  get(entry: Entry): Cell | undefined {
    return this.#tables[entry.kind].get(placeOf(entry))?.get(nameOf(entry))
  }

  link(name: string): Cell | undefined {
    return this.#tables.link.get('')?.get(name)
  }

  nexthop(id: number): Cell | undefined {
    return this.#tables.nexthop.get('')?.get(id)
  }

  route(destination: Prefix, table: number, metric: number): Cell | undefined {
    return this.#tables.route.get(placeOfRoute(table, metric))?.get(destination)
  }

  fdb(link: string, mac: Mac): Cell | undefined {
    return this.#tables.fdb.get(link)?.get(mac)
  }

  /** Cells that have at least one side. */
  *values(): Generator<Cell> {
    for (const kind of Object.values(this.#tables)) for (const table of kind.values()) yield* table.values()
  }

  /** How many cells have that side. */
  size(side: Side): number {
    return this.#sizes[side]
  }

  /** The cell with the entry's key, made when there is none: then one of its sides is to be put. */
  at(entry: Entry): Cell {
    const tables = this.#tables[entry.kind]
    const place = placeOf(entry)
    let table = tables.get(place)
    if (table === undefined) {
      table = new Map()
      tables.set(place, table)
    }
    const name = nameOf(entry)
    const found = table.get(name)
    if (found !== undefined) return found
    const cell = { like: entry, desired: undefined, actual: undefined }
    table.set(name, cell)
    return cell
  }

  /** The cell that has the key of this one now: one that lost both sides is not here any more. */
  current(cell: Cell): Cell {
    return isEmpty(cell) ? (this.get(cell.like) ?? cell) : cell
  }

  /** Puts one side of a cell that is here, or takes it away. */
  put(side: Side, cell: MutableCell, entry: Entry | undefined): void {
    this.#sizes[side] += Number(entry !== undefined) - Number(cell[side] !== undefined)
    cell[side] = entry
    if (entry !== undefined) cell.like = entry
    if (isEmpty(cell)) this.#tables[cell.like.kind].get(placeOf(cell.like))?.delete(nameOf(cell.like))
  }

  /** Takes one side away from all. */
  clear(side: Side): void {
    if (this.#sizes[side] === 0) return
    for (const cell of this.values()) this.put(side, cell, undefined)
  }

  /** One side as a state. */
  state(side: Side): KernelState {
    const state = new Map<Key, Entry>()
    for (const cell of this.values()) {
      const entry = cell[side]
      if (entry !== undefined) state.set(keyOf(entry), entry)
    }
    return state
  }
}

function isEmpty({ desired, actual }: Cell): boolean {
  return desired === undefined && actual === undefined
}

/** Which of the tables of its kind an entry is in. */
function placeOf(entry: Entry): Name {
  if (entry.kind === 'route') return placeOfRoute(entry.table, entry.metric)
  return entry.kind === 'link' || entry.kind === 'nexthop' ? '' : entry.link
}

function placeOfRoute(table: number, metric: number): Name {
  return table === MAIN_TABLE ? metric : `${table} ${metric}`
}

/** What tells an entry from the others of its table. */
function nameOf(entry: Entry): Name {
  switch (entry.kind) {
    case 'link':
      return entry.name
    case 'address':
      return `${entry.ip}/${entry.length}`
    case 'nexthop':
      return entry.id
    case 'route':
      return entry.destination
    case 'neighbour':
      return entry.ip
    case 'fdb':
      return entry.mac
    case 'peer':
      return entry.publicKey
    default:
      return entry satisfies never
  }
}

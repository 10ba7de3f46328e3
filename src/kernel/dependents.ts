/** Which of the entries that the kernel holds depend on something that has no entry for each of them. */

import { familyBits, type Ip, ipFamily } from '../address/ip.ts'
import { type Prefix, prefixOf } from '../address/prefix.ts'
import { PrefixMap } from '../address/prefix-map.ts'
import type { Entry } from '../state.ts'
import type { Cell } from './cells.ts'

export class Dependents {
  readonly #onDemandLinks: ReadonlySet<string>
  /** The routes that use a nexthop object; as a rule it is one. */
  readonly #routesOf = new Map<number, readonly Cell[]>()
  /** The neighbours on links where they are answered on demand, each by its address as a prefix. */
  #onDemand = new PrefixMap<readonly Cell[]>()

  /** @param onDemandLinks Links whose neighbours are answered on demand. */
  constructor(onDemandLinks: ReadonlySet<string>) {
    this.#onDemandLinks = onDemandLinks
  }

  routesOf(nexthop: number): readonly Cell[] {
    return this.#routesOf.get(nexthop) ?? []
  }

  /** The neighbours in the subnet that are answered on demand, in whatever state. */
  onDemand(subnet: Prefix): Cell[] {
    return this.#onDemand.overlapping(subnet).flat()
  }

  clear(): void {
    this.#routesOf.clear()
    this.#onDemand = new PrefixMap()
  }

  add(cell: Cell, entry: Entry): void {
    if (entry.kind === 'route' && entry.nexthop !== undefined) {
      this.#routesOf.set(entry.nexthop, [...this.routesOf(entry.nexthop), cell])
    } else if (entry.kind === 'neighbour' && this.#onDemandLinks.has(entry.link)) {
      const address = hostPrefix(entry.ip)
      this.#onDemand.set(address, [...(this.#onDemand.get(address) ?? []), cell])
    }
  }

  delete(cell: Cell, entry: Entry): void {
    if (entry.kind === 'route' && entry.nexthop !== undefined) {
      const rest = this.routesOf(entry.nexthop).filter((other) => other !== cell)
      if (rest.length === 0) this.#routesOf.delete(entry.nexthop)
      else this.#routesOf.set(entry.nexthop, rest)
    } else if (entry.kind === 'neighbour' && this.#onDemandLinks.has(entry.link)) {
      const address = hostPrefix(entry.ip)
      const rest = this.#onDemand.get(address)?.filter((other) => other !== cell) ?? []
      if (rest.length === 0) this.#onDemand.delete(address)
      else this.#onDemand.set(address, rest)
    }
  }
}

function hostPrefix(ip: Ip): Prefix {
  return prefixOf(ip, familyBits(ipFamily(ip)))
}

/** Values by prefix, found by what shares an address with them. */

import { type Family, familyBits, type Ip, ipFamily } from './ip.ts'
import {
  type Prefix,
  prefixCovers,
  prefixBase,
  prefixFamily,
  prefixLength,
  prefixOf,
  subPrefixes,
} from './prefix.ts'

/**
 * A table for each prefix length in use, as routers have had them: a look-up is one probe for each length. Subnets of
 * one network have one length as a rule, so it is one probe, and an entry costs what it costs in a Map.
 */
export class PrefixMap<V> {
  readonly #tables: Readonly<Record<Family, Map<number, Map<Prefix, V>>>> = {
    inet: new Map(),
    inet6: new Map(),
  }

  get(prefix: Prefix): V | undefined {
    return this.#tables[prefixFamily(prefix)].get(prefixLength(prefix))?.get(prefix)
  }

  set(prefix: Prefix, value: V): void {
    const tables = this.#tables[prefixFamily(prefix)]
    const length = prefixLength(prefix)
    const table = tables.get(length)
    if (table === undefined) tables.set(length, new Map([[prefix, value]]))
    else table.set(prefix, value)
  }

  delete(prefix: Prefix): void {
    const tables = this.#tables[prefixFamily(prefix)]
    const length = prefixLength(prefix)
    const table = tables.get(length)
    if (table?.delete(prefix) === true && table.size === 0) tables.delete(length)
  }

  /** The value of the longest prefix that holds the address. */
  longest(ip: Ip): V | undefined {
    let best: { readonly length: number; readonly value: V } | undefined
    for (const [length, table] of this.#tables[ipFamily(ip)]) {
      if (best !== undefined && best.length > length) continue
      const value = table.get(prefixOf(ip, length))
      if (value !== undefined) best = { length, value }
    }
    return best?.value
  }

  /** The values of every prefix that shares an address with this one, itself included: first those that cover it. */
  overlapping(prefix: Prefix): V[] {
    const tables = this.#tables[prefixFamily(prefix)]
    const length = prefixLength(prefix)
    const found: V[] = []
    for (const [other, table] of tables) {
      if (other > length) continue
      const value = table.get(other === length ? prefix : prefixOf(prefixBase(prefix), other))
      if (value !== undefined) found.push(value)
    }
    for (const [other, table] of tables) if (other > length) collect(prefix, other, table, found)
    return found
  }
}

/** Those of a length that a prefix covers: all that there could be are looked up, or all that there are looked at. */
function collect<V>(prefix: Prefix, length: number, table: ReadonlyMap<Prefix, V>, found: V[]): void {
  const bits = length - prefixLength(prefix)
  if (bits < familyBits('inet') && 2 ** bits < table.size) {
    for (const each of subPrefixes(prefix, length)) {
      const value = table.get(each)
      if (value !== undefined) found.push(value)
    }
  } else {
    for (const [each, value] of table) if (prefixCovers(prefix, each)) found.push(value)
  }
}

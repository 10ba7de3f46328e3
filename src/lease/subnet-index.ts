/** Which leases hold a subnet, found by overlap. */

import { type Family, ipBytes } from '../address/ip.ts'
import { type Prefix, prefixBase, prefixFamily, prefixLength } from '../address/prefix.ts'
import type { LeaseKey } from './lease.ts'

interface Node {
  readonly keys: Set<LeaseKey>
  readonly children: [Node | undefined, Node | undefined]
}

/**
 * A binary trie over the bits of the subnets, one for each family. The path to a subnet passes every subnet that
 * covers it, and what hangs below is what it covers: there is no other way for two prefixes to overlap.
 */
export class SubnetIndex {
  readonly #roots: Readonly<Record<Family, Node>> = { inet: newNode(), inet6: newNode() }

  add(subnet: Prefix, key: LeaseKey): void {
    let node = this.#roots[prefixFamily(subnet)]
    for (const bit of bits(subnet)) node = node.children[bit] ??= newNode()
    node.keys.add(key)
  }

  delete(subnet: Prefix, key: LeaseKey): void {
    const path = [this.#roots[prefixFamily(subnet)]]
    for (const bit of bits(subnet)) {
      const next = path.at(-1)?.children[bit]
      if (next === undefined) return
      path.push(next)
    }
    path.at(-1)?.keys.delete(key)
    while (path.length > 1) {
      const node = path.pop()
      const parent = path.at(-1)
      if (node === undefined || parent === undefined || !isEmpty(node)) return
      parent.children[parent.children[0] === node ? 0 : 1] = undefined
    }
  }

  /** The holders of every subnet that shares an address with this one: first those that cover it. */
  overlapping(subnet: Prefix): LeaseKey[] {
    const found: LeaseKey[] = []
    let node: Node | undefined = this.#roots[prefixFamily(subnet)]
    for (const bit of bits(subnet)) {
      for (const key of node.keys) found.push(key)
      node = node.children[bit]
      if (node === undefined) return found
    }
    collect(node, found)
    return found
  }
}

function newNode(): Node {
  return { keys: new Set(), children: [undefined, undefined] }
}

function isEmpty({ keys, children }: Node): boolean {
  return keys.size === 0 && children[0] === undefined && children[1] === undefined
}

function collect({ keys, children }: Node, found: LeaseKey[]): void {
  for (const key of keys) found.push(key)
  for (const child of children) if (child !== undefined) collect(child, found)
}

function bits(subnet: Prefix): (0 | 1)[] {
  const bytes = ipBytes(prefixBase(subnet))
  const bit = (i: number) => ((bytes[i >> 3] ?? 0) >> (7 - (i & 7))) & 1
  return Array.from({ length: prefixLength(subnet) }, (_, i) => (bit(i) === 1 ? 1 : 0))
}

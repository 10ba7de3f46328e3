/**
 * What the WireGuard devices hold of ours. The kernel tells of no change in them, so they are looked at: with every
 * reading, after every change of ours, and from time to time; and only what differs is handed on.
 */

import type { Entry, Link, Operation } from '../state.ts'
import type { Cell, Cells } from './cells.ts'
import { diffEntry } from './diff.ts'
import { Roaming } from './roaming.ts'
import type { WireguardDevices } from './wireguard.ts'

export class WireguardMirror {
  readonly #links: ReadonlySet<string>
  readonly #devices: WireguardDevices
  readonly #cells: Cells
  readonly #roaming = new Roaming()
  /** Handshakes of before prove nothing: since then the device has another port. By link; as `performance.now()`. */
  readonly #moved = new Map<string, number>()
  readonly #interval: number
  #doubtful = false
  #next = 0

  /** @param interval Milliseconds between two looks. */
  constructor(links: ReadonlySet<string>, devices: WireguardDevices, cells: Cells, interval: number) {
    this.#links = links
    this.#devices = devices
    this.#cells = cells
    this.#interval = interval
  }

  get devices(): WireguardDevices {
    return this.#devices
  }

  /** When the next look is due. Milliseconds, as `performance.now()`. */
  get next(): number {
    return this.#next
  }

  has(link: string): boolean {
    return this.#links.has(link)
  }

  /** Before all links are read. */
  clear(): void {
    this.#devices.clear()
    this.#doubtful = true
  }

  /** A link as it was read. */
  found(link: string, kind: string | undefined): void {
    if (this.has(link)) this.#devices.found(link, kind)
  }

  /**
   * What was sent is read again. With the port of our own device the network's config has changed, and with it the ports
   * of all others: to wait for them where they were would be to wait for each other.
   */
  doubt(operations: readonly Operation[], failed: ReadonlySet<Operation>): void {
    for (const operation of operations) {
      const { entry, actual, verb } = operation
      if (entry.kind === 'link' && portOf(entry) !== portOf(actual))
        this.#moved.set(entry.name, performance.now())
      if (entry.kind !== 'peer') continue
      this.#doubtful = true
      if (verb === 'delete') this.#roaming.forget(entry)
      else if (!failed.has(operation)) this.#roaming.settle(entry)
    }
  }

  isDue(now: number): boolean {
    return this.#doubtful || now >= this.#next
  }

  /** What differs from what was last seen: entries as they are now, and the cells of peers that are gone. */
  async look(now: number): Promise<{ readonly entries: readonly Entry[]; readonly gone: readonly Cell[] }> {
    this.#doubtful = false
    this.#next = now + this.#interval
    const entries: Entry[] = []
    const seen = new Set<Cell | undefined>()
    for (const name of this.#devices.links) {
      const link = this.#cells.link(name)?.actual
      if (link?.kind !== 'link') continue
      for (const entry of await this.#read(link)) {
        const cell = this.#cells.get(entry)
        seen.add(cell)
        if (differ(cell?.actual, entry)) entries.push(entry)
      }
    }
    const gone: Cell[] = []
    for (const cell of this.#cells.values()) {
      const { actual } = cell
      if (actual?.kind !== 'peer' || seen.has(cell)) continue
      gone.push(cell)
      this.#roaming.forget(actual)
    }
    return { entries, gone }
  }

  /** The link with what its device has, and its peers. */
  async #read(link: Link): Promise<Entry[]> {
    const facts = await this.#devices.read(link.name)
    if (facts === undefined) return [{ ...link, tunnel: undefined }]
    const moved = performance.now() - (this.#moved.get(link.name) ?? Number.NEGATIVE_INFINITY)
    const peers = facts.peers.map(({ peer, silence }) => {
      const desired = this.#cells.get(peer)?.desired
      // Read before anything is desired, as at the start, an endpoint is neither right nor wrong.
      if (desired?.kind !== 'peer') this.#doubtful = true
      const proof = silence !== undefined && silence < moved ? silence : undefined
      return this.#roaming.see(peer, desired?.kind === 'peer' ? desired : undefined, proof)
    })
    return [{ ...link, tunnel: facts.tunnel }, ...peers]
  }
}

/** Either way round: who desires no tunnel is content with any. */
function differ(known: Entry | undefined, entry: Entry): boolean {
  return diffEntry(known, entry) !== undefined || diffEntry(entry, known) !== undefined
}

function portOf(entry: Entry | undefined): number | undefined {
  if (entry?.kind !== 'link' || entry.tunnel?.type !== 'wireguard') return undefined
  return entry.tunnel.listenPort
}

/**
 * Nodes, as they are and as they change: a list in pages, then a watch from its resourceVersion on. A watch that broke
 * goes on after the last version that it told of; when the server no longer remembers that (410), or is another one, only
 * a new list helps. No error ever takes a node away.
 */

import { persist } from '../persist.ts'
import { RegistryError, type RegistryUnavailable } from '../registry.ts'
import { ApiError, type KubernetesClient, statusOf } from './client.ts'
import { field, type NodeEntry, textField } from './node.ts'

/** Which nodes, and what of them counts. */
export interface Selection {
  /** The one node of that name; undefined: all. */
  readonly name?: string
  /** Undefined for a node that does not count. A change of what is not read is no change. */
  readonly read: (node: unknown) => NodeEntry | undefined
}

export type Tick =
  | {
      readonly kind: 'contents'
      readonly incarnation: string
      readonly nodes: ReadonlyMap<string, NodeEntry>
    }
  /** Undefined for a node that is gone. With nothing in it: the connection is back, and nothing happened. */
  | { readonly kind: 'changes'; readonly changes: ReadonlyMap<string, NodeEntry | undefined> }
  | RegistryUnavailable

/** Nodes in one answer, 10 kB or so each. */
const PAGE = 500

/** How long the server lets a watch be, in seconds: not all watches of a cluster end together. */
const SHORTEST_WATCH = 300
const LONGEST_WATCH = 600

const GONE = 410

/** Ends with the signal, never with an error. The maps that it tells of are its own, and change with the next tick. */
export async function* follow(followed: Followed, signal: AbortSignal): AsyncGenerator<Tick, void> {
  let told = false
  yield* persist(async function* (): AsyncGenerator<Tick, void> {
    const listed = await followed.synchronise(signal)
    if (listed || !told) yield followed.contents
    told = true
    for await (const changes of followed.watch(signal)) yield { kind: 'changes', changes }
  }, signal)
}

/** What is known of the nodes, and until when. It outlives one `follow`: the next need not list them. */
export class Followed {
  readonly #client: KubernetesClient
  readonly #selection: Selection
  #nodes = new Map<string, NodeEntry>()
  /** The resourceVersion until which they are known; undefined: they are to be listed. */
  #version: string | undefined
  /** How often the store was replaced. */
  #replaced = 0

  constructor(client: KubernetesClient, selection: Selection) {
    this.#client = client
    this.#selection = selection
  }

  get contents(): Tick {
    return { kind: 'contents', incarnation: `${this.#replaced}`, nodes: this.#nodes }
  }

  /** Whether the nodes had to be listed; else the watch can go on where it broke. @throws {RegistryError} */
  async synchronise(signal: AbortSignal): Promise<boolean> {
    const before = { version: this.#version, nodes: this.#nodes }
    if (before.version !== undefined && (await this.#canResume(before.version, signal))) return false
    const { version, nodes } = await this.#list(signal)
    if (before.version !== undefined && !isSameStore(before.nodes, nodes)) this.#replaced++
    this.#version = version
    this.#nodes = nodes
    return true
  }

  /** Changes, until the watch is to be begun anew; none at first, when it stands. @throws {RegistryError} if it does not. */
  async *watch(signal: AbortSignal): AsyncGenerator<ReadonlyMap<string, NodeEntry | undefined>> {
    const seconds = Math.round(SHORTEST_WATCH + Math.random() * (LONGEST_WATCH - SHORTEST_WATCH))
    const path = this.#path({
      watch: '1',
      // Else the version to go on from grows old where nothing happens, and is forgotten.
      allowWatchBookmarks: 'true',
      resourceVersion: this.#version ?? '',
      timeoutSeconds: `${seconds}`,
    })
    let stands = false
    try {
      for await (const events of this.#client.watch(path, signal)) {
        const changes = new Map<string, NodeEntry | undefined>()
        const end = events.findIndex((event) => field(event, 'type') === 'ERROR')
        for (const event of end === -1 ? events : events.slice(0, end)) this.#apply(event, changes)
        if (!stands || changes.size > 0) yield changes
        stands = true
        if (end !== -1) throw refused(field(events[end], 'object'))
      }
    } catch (error) {
      if (statusOf(error) === GONE) this.#version = undefined
      else if (!stands || !(error instanceof RegistryError)) throw error
    }
  }

  #apply(event: unknown, changes: Map<string, NodeEntry | undefined>): void {
    const type = textField(event, 'type')
    const object = field(event, 'object')
    const name = textField(object, 'metadata', 'name')
    const version = textField(object, 'metadata', 'resourceVersion')
    if (version !== undefined) this.#version = version
    if (type === 'BOOKMARK' || name === undefined) return
    const before = this.#nodes.get(name)
    const now = type === 'DELETED' ? undefined : this.#selection.read(object)
    if (before === now || (before && now && isSame(before, now))) return
    if (now === undefined) this.#nodes.delete(name)
    else this.#nodes.set(name, now)
    changes.set(name, now)
  }

  async #list(signal: AbortSignal): Promise<{ version: string; nodes: Map<string, NodeEntry> }> {
    const nodes = new Map<string, NodeEntry>()
    let next = ''
    for (;;) {
      const list = await this.#page(next, PAGE, signal)
      for (const item of list.items) {
        const read = this.#selection.read(item)
        if (read === undefined) continue
        const before = this.#nodes.get(read.key)
        nodes.set(read.key, before !== undefined && isSame(before, read) ? before : read)
      }
      if (list.next === '') return { version: list.version, nodes }
      if (list.next === next) throw new RegistryError('unavailable', 'the API server gives one page again')
      next = list.next
    }
  }

  /**
   * Whether the store is the one that was watched. One that was restored from a backup counts on from an older version, and
   * would let a watch from a later one wait in silence.
   */
  async #canResume(version: string, signal: AbortSignal): Promise<boolean> {
    const now = await this.#page('', 1, signal)
    if (isOlder(now.version, version)) return false
    return now.items.every((item) => {
      const known = this.#nodes.get(textField(item, 'metadata', 'name') ?? '')
      return known === undefined || known.uid === textField(item, 'metadata', 'uid')
    })
  }

  /** @param from Where the page before ended; empty: the first. All pages are of one version. */
  async #page(
    from: string,
    limit: number,
    signal: AbortSignal,
  ): Promise<{ version: string; items: readonly unknown[]; next: string }> {
    const path = this.#path({ limit: `${limit}`, ...(from !== '' && { continue: from }) })
    const list = await this.#client.call('list', { method: 'GET', path }, signal)
    const items = field(list, 'items')
    const version = textField(list, 'metadata', 'resourceVersion')
    if (!Array.isArray(items) || version === undefined || version === '') {
      throw new RegistryError('unavailable', `${this.#client.server}: its answer is no list of nodes`)
    }
    return { version, items, next: textField(list, 'metadata', 'continue') ?? '' }
  }

  #path(query: Readonly<Record<string, string>>): string {
    const { name } = this.#selection
    const selector = name === undefined ? {} : { fieldSelector: `metadata.name=${name}` }
    return `/api/v1/nodes?${new URLSearchParams({ ...selector, ...query }).toString()}`
  }
}

/** Versions are opaque, but those of etcd are numbers that grow. */
function isOlder(version: string, than: string): boolean {
  const isNumber = /^\d{1,20}$/
  return isNumber.test(version) && isNumber.test(than) && BigInt(version) < BigInt(than)
}

/** A node that both have: no uid is given twice. */
function isSameStore(before: ReadonlyMap<string, NodeEntry>, now: ReadonlyMap<string, NodeEntry>): boolean {
  return before.size === 0 || [...before.values()].some(({ key, uid }) => now.get(key)?.uid === uid)
}

function isSame(a: NodeEntry, b: NodeEntry): boolean {
  return a.value === b.value && a.uid === b.uid && a.created === b.created
}

/** @param status A Status object. */
function refused(status: unknown): RegistryError {
  const code = field(status, 'code')
  const message = textField(status, 'message') ?? 'the watch was refused'
  const cause = new ApiError(typeof code === 'number' ? code : 0, message)
  return new RegistryError('unavailable', message, { cause })
}

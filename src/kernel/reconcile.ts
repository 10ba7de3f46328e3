/**
 * The reconciler: one turn is *read → diff → apply → report*, and everything is that turn. Start-up, a lease that came,
 * an entry that somebody deleted, a link that was made anew, an L3 miss, a retry: each only says which keys to look at.
 */

import { Connection, Subscription } from '../netlink/connection.ts'
import { NetlinkError } from '../netlink/message.ts'
import {
  type Answer,
  type Entry,
  type Failure,
  type Key,
  keyOf,
  type Operation,
  type Report,
  type Scope,
  type Share,
} from '../state.ts'
import { applyOperations, type Links } from './apply.ts'
import { Bell } from './bell.ts'
import { type Cell, Cells } from './cells.ts'
import { Checksums } from './checksums.ts'
import { Desired } from './desired.ts'
import { diffEntry, orderOperations } from './diff.ts'
import { hasNexthopObjects } from './dump.ts'
import { mirrorGroups } from './families.ts'
import { Mirror } from './mirror.ts'
import { isAnswer, isRefusal, Misses } from './misses.ts'
import { NexthopIds } from './nexthops.ts'
import { mayReplace, owns } from './ownership.ts'
import { Retries } from './retries.ts'
import { WaitingShares } from './waiting-shares.ts'
import { WireguardDevices, type WireguardOptions } from './wireguard.ts'
import { WireguardMirror } from './wireguard-mirror.ts'

const RECEIVE_BUFFER = 8 * 1024 * 1024
/** A guard: a link that is made anew takes four rounds (delete, add, probes, all that is on it). */
const MAX_ROUNDS = 8
/** What no notification tells (neighbour table parameters) is found at the latest after this time. Milliseconds. */
const RESYNC_INTERVAL = 300_000
/** How often the peers of WireGuard devices are looked at. Milliseconds. */
const WIREGUARD_INTERVAL = 10_000

export interface ReconcilerOptions {
  readonly scope: Scope
  /** Path of a network namespace; undefined for the process's own. */
  readonly netns?: string | undefined
  /** False: gateway routes, as on a kernel before 5.3. Undefined: as the kernel can. */
  readonly nexthopObjects?: boolean | undefined
  /** Bytes for notifications that wait; the default holds about 20,000. What does not fit is an overrun, then a dump. */
  readonly receiveBuffer?: number
  readonly wireguard?: WireguardOptions
}

/** From so many on they are removed before their link. */
const MANY_ROUTES = 1000
/** Shares that are planned together: about as many as make one datagram. */
const GROUP = 250

/** The kernel took an operation, said yes, and it does not hold: another program undoes it, or it means nothing here. */
export class DoesNotHold extends Error {
  override readonly name = 'DoesNotHold'
}

export class Reconciler implements Disposable {
  readonly #scope: Scope
  readonly #connection: Connection
  readonly #subscription: Subscription
  readonly #checksums: Checksums | undefined
  readonly #cells = new Cells()
  readonly #mirror: Mirror
  /** Undefined: the scope has no such links. */
  readonly #wireguard: WireguardMirror | undefined
  readonly #desired: Desired
  readonly #waiting = new WaitingShares()
  readonly #retries = new Retries()
  readonly #misses: Misses
  readonly #bell = new Bell()
  /** What to look at; `#everything` stands for all of it. */
  readonly #due = new Set<Cell>()
  #everything = true
  /** Those whose desired entry changed: an operation on any other repairs what somebody else did. */
  readonly #planned = new WeakSet<Cell>()
  #settled = false

  private constructor(
    { scope, netns, wireguard = {} }: ReconcilerOptions,
    connection: Connection,
    subscription: Subscription,
    checksums: Checksums | undefined,
    ids: NexthopIds | undefined,
  ) {
    const { interval = WIREGUARD_INTERVAL } = wireguard
    const links = scope.wireguard ?? new Set()
    this.#scope = scope
    this.#checksums = checksums
    this.#connection = connection
    this.#subscription = subscription
    this.#desired = new Desired(ids, scope.underlay, this.#cells)
    this.#misses = new Misses(scope, this.#cells, this.#desired.answers)
    if (links.size > 0) {
      const devices = new WireguardDevices(netns, wireguard)
      this.#wireguard = new WireguardMirror(links, devices, this.#cells, interval)
    }
    this.#mirror = new Mirror(scope, ids !== undefined, this.#cells, checksums, this.#wireguard)
  }

  /** Subscribes and reads what the kernel holds. Changes nothing. @throws {NetlinkError} */
  static async open(options: ReconcilerOptions): Promise<Reconciler> {
    const { scope, netns, receiveBuffer = RECEIVE_BUFFER } = options
    const connection = Connection.open({ netns })
    const objects = options.nexthopObjects ?? (await hasNexthopObjects(connection))
    const subscription = Subscription.open({
      netns,
      groups: mirrorGroups(scope, objects),
      receiveBuffer,
    })
    const ids = objects ? new NexthopIds() : undefined
    const checksums = scope.checksums === true ? await Checksums.open(netns) : undefined
    const reconciler = new Reconciler(options, connection, subscription, checksums, ids)
    await reconciler.#mirror.read(connection)
    for (const { actual } of reconciler.#cells.values()) {
      if (actual?.kind === 'nexthop') ids?.keep(actual.id, actual.link, actual.gateway)
    }
    for (const id of reconciler.#mirror.foreignNexthops) ids?.avoid(id)
    return reconciler
  }

  /** What is not as desired, and why. */
  get failures(): readonly Failure[] {
    return this.#retries.failures
  }

  /** How often notifications were lost, each time made good by a dump. */
  get overruns(): number {
    return this.#mirror.overruns
  }

  /** Changes the desired state by whole shares; the next turn makes it so. */
  exchange(removed: readonly Share[], added: readonly Share[]): void {
    this.planWaiting()
    this.#exchange(removed, added)
    this.#bell.ring()
  }

  /**
   * The same, of shares that have no link and replace none. The next turn makes some while the kernel works on those before,
   * and takes nothing away until it has them all.
   */
  add<T>(values: readonly T[], shareOf: (value: T) => Share): void {
    this.#waiting.add(values, shareOf)
    this.#bell.ring()
  }

  /** Makes the shares that are still to be made. @throws What making one throws. */
  planWaiting(): void {
    while (this.#waiting.any) this.#exchange([], this.#waiting.take(GROUP))
  }

  /** Takes a turn whenever there is something to do, until the signal. Then closes. */
  async *run(signal: AbortSignal): AsyncGenerator<Report, void> {
    let reading: Promise<void> | undefined
    try {
      while (!signal.aborted) {
        yield await this.turn()
        reading ??= this.#subscription.readable().then(() => {
          reading = undefined
          this.#bell.ring()
        })
        const next = Math.min(this.#retries.next, this.#wireguard?.next ?? Number.POSITIVE_INFINITY)
        const pause = Math.min(RESYNC_INTERVAL, Math.max(0, next - performance.now()))
        const heard = await this.#bell.heard(pause, signal)
        if (!heard && pause === RESYNC_INTERVAL) this.#mirror.invalidate()
      }
    } finally {
      this.close()
    }
  }

  /** One turn: afterwards the kernel is as desired, or the report says why not. A second turn does nothing. */
  async turn(): Promise<Report> {
    const started = performance.now()
    const turn: Turn = {
      operations: [],
      triedFrom: 0,
      triedLinks: [],
      failures: [],
      repaired: [],
      answered: 0,
      refused: 0,
      error: undefined,
    }
    try {
      await this.#rounds(turn)
    } catch (error) {
      // The kernel could not be read (an answer was lost, a dump never held still): nothing is known, so read again.
      this.#mirror.invalidate()
      turn.error = error instanceof Error ? error : new Error(String(error))
      this.#retries.unreadable(performance.now())
    }
    const { operations, failures, repaired, error, answered, refused } = turn
    const duration = performance.now() - started
    return { operations, failures, repaired, error, misses: { answered, refused }, duration }
  }

  close(): void {
    this.#subscription.close()
    this.#connection.close()
    this.#checksums?.close()
    this.#wireguard?.devices.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async #rounds(turn: Turn): Promise<void> {
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const isLast = round === MAX_ROUNDS - 1
      await this.#refresh()
      const links = this.#diffLinks(turn)
      if (links === undefined && this.#waiting.any) {
        if (isLast) this.#bell.ring()
        else await this.#apply(this.#arriving(turn), turn)
        continue
      }
      const operations = links ?? this.#diff(turn)
      if (operations.length === 0) break
      if (isLast) this.#postpone(operations, turn)
      else await this.#apply(operations, turn)
    }
    this.#settled = true
    // There is no link to put them on: it is known at least who they are.
    this.planWaiting()
  }

  #exchange(removed: readonly Share[], added: readonly Share[]): Cell[] {
    const touched = this.#desired.exchange(removed, added)
    this.#plan(touched)
    for (const { answers } of removed) this.#plan(this.#answeredBy(answers))
    for (const { answers } of added) this.#plan(this.#answeredBy(answers))
    return touched
  }

  /** Work that keeps coming (a storm of misses) goes on in the next turn; a link that keeps changing is a failure. */
  #postpone(operations: readonly Operation[], turn: Turn): void {
    for (const operation of operations) {
      if (operation.entry.kind === 'link') this.#failToHold(operation, turn)
      else this.#due.add(this.#cell(operation.entry))
    }
    this.#bell.ring()
  }

  /** Brings the mirror up to the kernel, and notes what is no longer known to be right. */
  async #refresh(): Promise<void> {
    for (const cell of this.#mirror.take(this.#subscription.drain())) this.#due.add(cell)
    if (this.#mirror.underlay.takeChange()) this.#retries.hurry()
    for (const entry of this.#retries.due(performance.now())) this.#due.add(this.#cell(entry))
    if (!this.#mirror.stale) {
      if (!this.#mirror.doubtful) return
      for (const cell of await this.#mirror.readDoubtful(this.#connection)) this.#due.add(cell)
      return
    }
    await this.#mirror.read(this.#connection)
    this.#everything = true
    for (const id of this.#mirror.foreignNexthops) this.#plan(this.#desired.renumber(id))
  }

  /**
   * Operations on links come alone, because a link takes much with it that must be read again; and as long as a link is
   * missing or wrong, there is nothing to do on it. Undefined when all are there.
   */
  #diffLinks(turn: Turn): readonly Operation[] | undefined {
    const wrong: Operation[] = []
    for (const name of this.#scope.links) {
      const cell = this.#cells.link(name)
      const operation = cell && this.#step(cell, turn)
      if (operation !== undefined) wrong.push(operation)
    }
    const now = this.#ready(wrong, turn)
    if (now.length === 0 && wrong.every(({ verb }) => verb === 'change')) return undefined
    this.#everything = true
    return this.#withRoutes(now)
  }

  /** The operations that are to be applied now. */
  #diff(turn: Turn): readonly Operation[] {
    const operations = this.#steps(this.#everything ? this.#cells.values() : this.#dueNow(), turn)
    this.#everything = false
    this.#due.clear()
    return this.#ready(operations, turn)
  }

  /** What the shares that wait need, as it is asked for. */
  *#arriving(turn: Turn): Generator<Operation> {
    while (this.#waiting.any) {
      yield* this.#steps(new Set(this.#exchange([], this.#waiting.take(GROUP))), turn)
    }
  }

  /** For all but links, in the order in which they are to be applied. */
  #steps(cells: Iterable<Cell>, turn: Turn): readonly Operation[] {
    const operations: Operation[] = []
    const forwarded = new Set<Key>()
    for (const cell of cells) {
      const operation = this.#step(cell, turn)
      if (operation === undefined) this.#planned.delete(cell)
      else if (operation.entry.kind !== 'link') operations.push(operation)
      const forwarding =
        operation?.verb === 'delete' ? undefined : this.#misses.forwarding(operation?.entry ?? cell.actual)
      if (forwarding === undefined || forwarded.has(keyOf(forwarding.entry))) continue
      forwarded.add(keyOf(forwarding.entry))
      const known = this.#cells.get(forwarding.entry)
      if (known !== undefined) this.#planned.add(known)
      operations.push(forwarding)
    }
    return orderOperations(operations)
  }

  /** Without those that wait for another try, in a later turn, and those that were applied in this turn to no effect. */
  #ready(operations: readonly Operation[], turn: Turn): readonly Operation[] {
    if (operations.length === 0) return operations
    const before = [...turn.triedLinks, ...turn.operations.slice(turn.triedFrom)]
    if (before.length === 0 && this.#retries.size === 0) return operations
    // A start has tried hundreds of thousands, and is left with the address of the link.
    const kinds = new Set(operations.map(({ entry }) => entry.kind))
    const alike = before.filter(({ entry }) => kinds.has(entry.kind))
    const tried = new Map(alike.map((operation) => [keyOf(operation.entry), operation]))
    const failed = new Set(turn.failures.map(({ operation }) => keyOf(operation.entry)))
    const now = performance.now()
    return operations.filter((operation) => {
      const key = keyOf(operation.entry)
      if (failed.has(key) || this.#retries.paused(operation.entry, now)) return false
      if (!isSame(operation, tried.get(key))) return true
      this.#failToHold(operation, turn)
      return false
    })
  }

  /**
   * A link that goes takes its nexthops along, and each of them looks for its routes among all: 10 s for 40,000, in which
   * nobody on the machine gets the RTNL lock. So when there are many, the routes go first.
   */
  #withRoutes(links: readonly Operation[]): readonly Operation[] {
    const gone = new Set(links.filter(({ verb }) => verb === 'delete').map(({ entry }) => nameOf(entry)))
    if (gone.size === 0) return links
    const routes: Operation[] = []
    for (const { actual } of this.#cells.values()) {
      if (actual?.kind !== 'route' || actual.nexthop === undefined || !gone.has(actual.link)) continue
      if (owns(this.#scope, actual)) routes.push({ verb: 'delete', entry: actual, why: 'its link goes' })
    }
    return routes.length < MANY_ROUTES ? links : [...routes, ...links]
  }

  #dueNow(): Set<Cell> {
    const cells = new Set<Cell>()
    for (const cell of this.#due) cells.add(this.#cells.current(cell))
    return cells
  }

  #cell(like: Entry): Cell {
    return this.#cells.get(like) ?? { like, desired: undefined, actual: undefined }
  }

  /** The step for one cell; undefined when the kernel is as desired, or when what it holds is not ours. */
  #step(cell: Cell, turn: Turn): Operation | undefined {
    const { like, desired: planned, actual } = cell
    const desired = planned ?? this.#misses.answer(actual)
    if (desired === undefined && actual !== undefined && !owns(this.#scope, actual)) {
      return this.#leave(cell, actual, turn)
    }
    this.#misses.settled(like)
    const inTheWay =
      desired !== undefined && actual !== undefined && !mayReplace(this.#scope, desired, actual)
    const operation = diffEntry(desired, inTheWay ? undefined : actual)
    if (operation !== undefined) return operation
    this.#retries.settled(like)
    // An equal one is held once.
    if (planned !== undefined && planned !== actual) this.#cells.put('actual', cell, planned)
    return undefined
  }

  /** The neighbours and FDB entries that any of the answers may be for. */
  *#answeredBy(answers: readonly Answer[]): Generator<Cell> {
    for (const { subnet } of answers) yield* this.#mirror.onDemand(subnet)
    yield* this.#misses.destinations(answers)
  }

  /** What the kernel holds and nobody desires, and is not ours: if it is a miss, it may be refused. */
  #leave(cell: Cell, actual: Entry, turn: Turn): Operation | undefined {
    this.#retries.settled(actual)
    if (actual.kind === 'fdb' && actual.destination === undefined) {
      this.#mirror.forget(cell)
      return undefined
    }
    const { refused, operation } = this.#misses.leave(actual)
    if (refused) turn.refused++
    return operation
  }

  /** @param wanted Taken one after the other, while the kernel works. */
  async #apply(wanted: Iterable<Operation>, turn: Turn): Promise<void> {
    const first = turn.operations.length
    const links: Links = {
      indexOf: this.#mirror.indexOf,
      underlay: this.#mirror.underlay.name,
      checksums: this.#checksums,
      wireguard: this.#wireguard?.devices,
    }
    const failures = await applyOperations(this.#connection, wanted, links, turn.operations)
    const operations = first === 0 ? turn.operations : turn.operations.slice(first)
    const failed = new Set(failures.map(({ operation }) => operation))
    this.#wireguard?.doubt(operations, failed)
    // Looking at all costs less than to list them when they are most of what there is.
    const most = Math.max(this.#cells.size('desired'), this.#cells.size('actual'))
    if (2 * operations.length > most) this.#everything = true
    for (const operation of operations) {
      const cell = this.#everything && !this.#settled ? undefined : this.#cells.get(operation.entry)
      if (!this.#everything) this.#due.add(cell ?? this.#cell(operation.entry))
      if (failed.has(operation) || isRefusal(operation)) continue
      if (isAnswer(operation)) turn.answered++
      else if (this.#settled && cell !== undefined && !this.#planned.has(cell)) turn.repaired.push(operation)
    }
    for (const failure of failures) {
      if (isGone(failure)) this.#mirror.invalidate()
      else this.#fail(failure, turn)
    }
    if (operations.some(({ entry }) => entry.kind === 'address')) this.#mirror.doubtAddresses()
    const onLinks = operations.filter(({ entry }) => entry.kind === 'link')
    if (onLinks.length === 0) return
    // What was on the link may have gone with the change: it is read, and tried, again.
    this.#mirror.invalidate()
    const names = new Set(onLinks.map(({ entry }) => nameOf(entry)))
    turn.triedLinks = [...turn.triedLinks.filter(({ entry }) => names.has(nameOf(entry))), ...onLinks]
    turn.triedFrom = turn.operations.length
  }

  /** What failed is a doubt: the kernel may not be what the mirror says. */
  #fail(failure: Failure, turn: Turn): void {
    this.#mirror.invalidate()
    turn.failures.push(failure)
    this.#retries.failed(failure, performance.now())
  }

  #failToHold(operation: Operation, turn: Turn): void {
    this.#fail({ operation, error: new DoesNotHold('the kernel accepted it, and it does not hold') }, turn)
  }

  #plan(cells: Iterable<Cell>): void {
    for (const cell of cells) {
      if (!this.#everything) this.#due.add(cell)
      if (this.#settled) this.#planned.add(cell)
      this.#retries.settled(cell.like)
    }
  }
}

/** What a turn gathers. */
interface Turn {
  operations: Operation[]
  /** Of them, those that must not be needed again, because what comes twice does not hold: all from here on, and these. */
  triedFrom: number
  triedLinks: Operation[]
  failures: Failure[]
  repaired: Operation[]
  answered: number
  refused: number
  error: Error | undefined
}

/**
 * What was to be changed or removed is not there any more, as when a link went and its entries were told before it. No
 * failure: the mirror was behind, and the next round sees what is left to do.
 */
function isGone({ operation: { verb, entry }, error }: Failure): boolean {
  if (!(error instanceof NetlinkError)) return false
  if (verb === 'delete' && (error.code === 'ENOENT' || error.code === 'ESRCH')) return true
  return error.code === 'ENODEV' && !(entry.kind === 'link' && verb === 'add')
}

function nameOf(entry: Entry): string | undefined {
  return entry.kind === 'link' ? entry.name : undefined
}

function isSame({ verb, why }: Operation, other: Operation | undefined): boolean {
  return verb === other?.verb && why === other.why
}

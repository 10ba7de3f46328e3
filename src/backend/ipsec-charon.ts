/**
 * charon, strongSwan's IKE daemon, as the ipsec backend needs it: found or started, and told of the connections.
 *
 * It goes on when the agent stops, and so do the tunnels: the next agent finds it on its socket. When it ends, it is started
 * again and told all of it again.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { NetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { CharonError, VICI_SOCKET, ViciClient } from '../vici/client.ts'
import { ViciError } from '../vici/message.ts'
import {
  type Backend,
  BackendError,
  type BackendOpener,
  type Companion,
  type CompanionStep,
  type HostFacts,
} from './backend.ts'
import { type Connection, connectionTo, isOurs, planIpsec, readIpsecSettings } from './ipsec.ts'
import { LeaseQueue } from './lease-queue.ts'
import { requireAddress } from './links.ts'

/** Where flannel looks, after PATH. */
const FOLDERS = ['/usr/lib/strongswan', '/usr/lib/ipsec', '/usr/libexec/strongswan', '/usr/libexec/ipsec']
/** For charon to listen, once it was started; between two looks. Milliseconds. */
const START_TIMEOUT = 30_000
const START_INTERVAL = 100

export const ipsec: BackendOpener = {
  check: planIpsec,

  async open(config, host, signal) {
    return await openIpsec(config, host, {}, signal)
  },
}

/** Where charon is, in place of where it is on a machine that has one. */
export interface CharonPlace {
  /** Path of its vici socket. */
  readonly socket?: string
  /** A program, and its arguments, that becomes charon. */
  readonly command?: readonly string[]
}

/** @throws {BackendError} */
export async function openIpsec(
  config: NetworkConfig,
  host: HostFacts,
  place: CharonPlace = {},
  signal?: AbortSignal,
): Promise<Backend & { readonly companion: Companion }> {
  const plan = planIpsec(config, host)
  const companion = new CharonCompanion(config, host, place)
  await companion.open(signal)
  return { ...plan, companion }
}

class CharonCompanion implements Companion {
  readonly #place: CharonPlace
  readonly #queue: LeaseQueue
  readonly #connection: (peer: Lease, own: Lease) => Connection | undefined
  #client: ViciClient | undefined
  /** When this process started it. */
  #charon: ChildProcess | undefined
  #own: Lease | undefined
  #stopped = false
  /** With the peers that are known first: what charon still has of others goes. */
  #cleared: Promise<void> | undefined

  constructor(config: NetworkConfig, host: HostFacts, place: CharonPlace) {
    this.#place = place
    const settings = readIpsecSettings(config)
    const addresses = requireAddress('inet', host, 'ipsec')
    this.#connection = (peer, own) => connectionTo(peer, own, addresses, settings)
    this.#queue = new LeaseQueue({
      kind: 'connection',
      same: (a, b) => a.subnets.inet === b.subnets.inet && a.publicIps.inet === b.publicIps.inet,
      add: (lease, signal) => this.#told(lease, signal, load),
      remove: (lease, signal) => this.#told(lease, signal, unload),
    })
  }

  get failures(): ReadonlyMap<LeaseKey, string> {
    return this.#queue.failures
  }

  /** @throws {BackendError} */
  async open(signal?: AbortSignal): Promise<ViciClient> {
    if (this.#client?.isClosed === false) return this.#client
    const client = await this.#connect()
    const opened = client ?? (await this.#start(signal))
    this.#client = opened
    void opened.closed.then(() => {
      if (!this.#stopped) this.#queue.again()
    })
    return opened
  }

  started(lease: Lease): Promise<void> {
    this.#own = lease
    return Promise.resolve()
  }

  exchange(removed: readonly Lease[], added: readonly Lease[]): void {
    this.#cleared ??= this.#clear(added).catch(() => undefined) // a charon that does not answer is started anew, and has none
    this.#queue.exchange(removed, added)
  }

  run(signal: AbortSignal): AsyncIterable<CompanionStep> {
    return this.#queue.run(signal)
  }

  async stopped(keep: boolean): Promise<void> {
    if (this.#stopped) return
    this.#stopped = true
    try {
      if (!keep) await asBackendError(this.#clear([]))
    } finally {
      this.#client?.close()
      if (!keep) this.#charon?.kill('SIGTERM')
    }
  }

  /** Removes all connections of ours but those to these peers. */
  async #clear(peers: readonly Lease[]): Promise<void> {
    const own = this.#own
    const client = this.#client
    if (own === undefined || client === undefined) return
    const wanted = new Set(peers.map((peer) => this.#connection(peer, own)?.name))
    for (const section of await client.list('list-conns', 'list-conn')) {
      for (const name of Object.keys(section)) {
        if (isOurs(name, own) && !wanted.has(name)) await unloadNamed(client, name)
      }
    }
  }

  async #told(
    lease: Lease,
    signal: AbortSignal,
    tell: (client: ViciClient, connection: Connection) => Promise<void>,
  ): Promise<void> {
    const connection = this.#own && this.#connection(lease, this.#own)
    if (connection === undefined) return
    await this.#cleared
    const client = await this.open(signal)
    await asBackendError(tell(client, connection))
  }

  /** @throws {BackendError} */
  async #start(signal: AbortSignal | undefined): Promise<ViciClient> {
    const [program = '', ...args] = this.#place.command ?? [await findCharon()]
    const charon = spawn(program, args, { detached: true, stdio: 'ignore' })
    let ended = ''
    charon.once('error', ({ message }) => (ended = message))
    charon.once('exit', (code, name) => (ended = name ?? `exit status ${code}`))
    charon.unref()
    this.#charon = charon
    const deadline = performance.now() + START_TIMEOUT
    for (;;) {
      const client = await this.#connect()
      if (client !== undefined) return client
      if (ended !== '') throw new BackendError(`${program} ended at once (${ended}): see its log`)
      if (signal?.aborted || performance.now() > deadline) break
      await sleep(START_INTERVAL)
    }
    charon.kill('SIGTERM')
    throw new BackendError(`${program} does not listen on ${this.#place.socket ?? VICI_SOCKET}`)
  }

  /** Undefined when nobody listens. */
  #connect(): Promise<ViciClient | undefined> {
    return ViciClient.connect(this.#place.socket).catch(() => undefined)
  }
}

/** The tunnel is not waited for: a peer may be away. */
async function load(
  client: ViciClient,
  { name, child, load: connection, shared }: Connection,
): Promise<void> {
  await client.request('load-shared', shared)
  await client.request('load-conn', connection)
  await client.request('initiate', { ike: name, child, timeout: '-1' })
}

async function unload(client: ViciClient, { name, shared }: Connection): Promise<void> {
  await unloadNamed(client, name)
  await client.request('unload-shared', { id: shared.id })
}

/** First what would make the tunnel again, then the tunnel, if there is one. */
async function unloadNamed(client: ViciClient, name: string): Promise<void> {
  await client.request('unload-conn', { name })
  await client.request('terminate', { ike: name, force: 'yes', timeout: '-1' }).catch(noTunnel)
}

function noTunnel(error: unknown): void {
  if (!(error instanceof CharonError && /no matching/.test(error.message))) throw error
}

async function findCharon(): Promise<string> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...FOLDERS]
  for (const folder of folders.filter((name) => name !== '')) {
    const path = join(folder, 'charon')
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path
  }
  throw new BackendError(
    `there is no charon in PATH, ${FOLDERS.join(', ')}: install strongSwan with its vici plugin`,
  )
}

async function asBackendError<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (error instanceof CharonError || error instanceof ViciError) throw new BackendError(error.message)
    throw error
  }
}

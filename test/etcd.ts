/** A real etcd for tests, on ports of its own, and a proxy before it that can fall silent. */

import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A test, or the file: what is started ends with it. */
export interface Context {
  readonly after: (end: () => void | Promise<void>) => void
}

export class Etcd {
  readonly endpoint: string
  readonly directory: string
  readonly #words: readonly string[]
  #process: ChildProcess | undefined

  private constructor(directory: string, endpoint: string, words: readonly string[]) {
    this.directory = directory
    this.endpoint = endpoint
    this.#words = words
  }

  /** @param inside Words before the program that runs it: `nsenter --net=PATH`. */
  static async start(
    t: Context,
    scheme: 'http' | 'https' = 'http',
    more: readonly string[] = [],
    inside: readonly string[] = [],
  ): Promise<Etcd> {
    const [etcd] = await Etcd.#prepare(t, 1, scheme, more, inside)
    assert.ok(etcd !== undefined)
    await etcd.start()
    return etcd
  }

  static async startCluster(t: Context): Promise<readonly Etcd[]> {
    const members = await Etcd.#prepare(t, 3, 'http', [], [])
    await Promise.all(members.map((member) => member.start()))
    return members
  }

  static async #prepare(
    t: Context,
    count: number,
    scheme: string,
    more: readonly string[],
    inside: readonly string[],
  ): Promise<Etcd[]> {
    const members: Etcd[] = []
    const peers = await Promise.all(
      Array.from(
        { length: count },
        async (_, i) => [`twt${i}`, `http://127.0.0.1:${await freePort()}`] as const,
      ),
    )
    const cluster = ['--initial-cluster', peers.map((peer) => peer.join('=')).join()]
    for (const [name, peer] of peers) {
      const directory = mkdtempSync(join(tmpdir(), 'twt-'))
      const endpoint = `${scheme}://127.0.0.1:${await freePort()}`
      const urls = ['--listen-client-urls', endpoint, '--advertise-client-urls', endpoint]
      const own = ['--name', name, '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer]
      const data = ['--data-dir', join(directory, 'data')]
      const words = [...inside, 'etcd', ...data, ...urls, ...own, ...cluster, ...more]
      const etcd = new Etcd(directory, endpoint, words)
      members.push(etcd)
      t.after(async () => {
        await etcd.stop()
        rmSync(directory, { recursive: true })
      })
    }
    return members
  }

  async start(): Promise<void> {
    const [program = '', ...args] = this.#words
    const started = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#process = started
    let log = ''
    await new Promise<void>((resolve, reject) => {
      started.stderr.on('data', (chunk: Buffer) => {
        log += chunk.toString()
        if (/serving .*client requests/.test(log)) resolve()
      })
      started.once('exit', () => reject(new Error(`etcd did not start:\n${log}`)))
    })
  }

  async stop(): Promise<void> {
    const running = this.#process
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return
    running.kill('SIGKILL')
    await once(running, 'exit')
  }

  /** As if the disk had been replaced. */
  wipe(): void {
    rmSync(join(this.directory, 'data'), { recursive: true })
  }

  /** Runs etcdctl; returns what it printed. */
  async ctl(...args: readonly string[]): Promise<string> {
    const env = { ...process.env, ETCDCTL_API: '3', ETCDCTL_ENDPOINTS: this.endpoint }
    const { stdout } = await promisify(execFile)('etcdctl', args, { env, maxBuffer: 2 ** 26 })
    return stdout.trimEnd()
  }

  /** Forgets all revisions but the last. */
  async compact(): Promise<void> {
    const { 1: revision = '' } = /"Revision" : (\d+)/.exec(await this.ctl('get', 'x', '-w', 'fields')) ?? []
    await this.ctl('compaction', revision)
  }

  async leaseCount(): Promise<number> {
    return (await this.ctl('lease', 'list')).split('\n').length - 1
  }
}

/** TCP that can be cut, or suspended: then nothing comes through, and nobody is told. */
export class Proxy {
  readonly endpoint: string
  readonly #sockets = new Set<Socket>()
  #suspended = false

  private constructor(port: number) {
    this.endpoint = `http://127.0.0.1:${port}`
  }

  static async start(t: Context, target: string): Promise<Proxy> {
    const server = createServer({ pauseOnConnect: true })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const proxy = new Proxy((server.address() as AddressInfo).port)
    server.on('connection', (client) => proxy.#pass(client, Number(new URL(target).port)))
    t.after(() => {
      proxy.cut()
      server.close()
    })
    return proxy
  }

  suspend(): void {
    this.#suspended = true
    for (const socket of this.#sockets) socket.pause()
  }

  resume(): void {
    this.#suspended = false
    for (const socket of this.#sockets) socket.resume()
  }

  /** Breaks all connections. New ones are taken. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  get connections(): number {
    return this.#sockets.size / 2
  }

  #pass(client: Socket, port: number): void {
    const server = connect(port, '127.0.0.1')
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from)
      from.on('data', (chunk) => to.write(chunk))
      from.on('error', () => to.destroy())
      from.on('close', () => {
        this.#sockets.delete(from)
        to.destroy()
      })
      if (this.#suspended) from.pause()
      else from.resume()
    }
  }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

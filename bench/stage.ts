/**
 * Where benches take place: a lab (`src/lab`) of hosts in network namespaces with an etcd in their underlay, and the
 * means to write leases and to look at the kernels. All of it is gone afterwards, however a bench ends.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { addAbortListener, once } from 'node:events'
import { mkdir, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildHost, buildUnderlay } from '../src/lab/build.ts'
import { ip, ipBatch, run } from '../src/lab/command.ts'
import { labDown, onCleanGround } from '../src/lab/lab.ts'
import { ETCD_PREFIX, ETCD_URL, startEtcd } from '../src/lab/registry.ts'
import { type Lab, type LabHost, planLab } from '../src/lab/topology.ts'
import type { Options } from './bench.ts'
import type { BackendSettings } from './network.ts'
import type { Done, Order } from './writer.ts'

/** An order to etcd, done. Nanoseconds of CLOCK_MONOTONIC. */
export interface Written {
  readonly began: bigint
  readonly ended: bigint
}

export class Stage {
  readonly lab: Lab
  readonly #writer: ChildProcess
  readonly #signal: AbortSignal
  readonly #waiting = new Map<number, (done: Done) => void>()
  #orders = 0

  private constructor(lab: Lab, writer: ChildProcess, signal: AbortSignal) {
    this.lab = lab
    this.#writer = writer
    this.#signal = signal
    writer.on('message', (done: Done) => {
      this.#waiting.get(done.id)?.(done)
      this.#waiting.delete(done.id)
    })
  }

  /**
   * Builds a stage, does the work on it until the signal, and takes it away with all that runs there. Work that is
   * interrupted is not waited for: it fails when it next turns to the stage, which is no more.
   */
  static async with<T>(
    hosts: number,
    { tell, signal }: Pick<Options, 'tell' | 'signal'>,
    work: (stage: Stage) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted()
    const lab = planLab(`bench${process.pid}`, hosts, 'etcd')
    try {
      await onCleanGround(lab, tell, async () => {
        await buildUnderlay(lab)
        await startEtcd(lab)
        for (const { subnetFile } of lab.hosts) await mkdir(dirname(subnetFile), { recursive: true })
      })
      return await untilAborted(signal, Stage.#onBuilt(lab, signal, work))
    } finally {
      await labDown(lab.name)
    }
  }

  static async #onBuilt<T>(lab: Lab, signal: AbortSignal, work: (stage: Stage) => Promise<T>): Promise<T> {
    const program = fileURLToPath(new URL('writer.ts', import.meta.url))
    const words = [`--net=${lab.underlay.path}`, process.execPath, program, ETCD_URL, ETCD_PREFIX]
    const writer = spawn('nsenter', words, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    const ended = once(writer, 'exit')
    const lost = ended.then(() => Promise.reject(new Error('the writer has ended')))
    try {
      const result = await Promise.race([work(new Stage(lab, writer, signal)), lost])
      for (const host of lab.hosts) await empty(host)
      return result
    } finally {
      if (writer.connected) writer.disconnect()
      await ended
    }
  }

  host(index: number): LabHost {
    const host = this.lab.hosts[index]
    if (host === undefined) throw new Error(`the stage has no host ${index}`)
    return host
  }

  /** A network of that many peers, and nothing else. */
  async network(backend: BackendSettings, peers: number): Promise<void> {
    await this.order({ kind: 'clear' })
    await this.order({ kind: 'config', backend })
    if (peers > 0) await this.order({ kind: 'put', from: 1, to: peers })
  }

  async order(order: Order): Promise<Written> {
    const id = this.#orders++
    const done = new Promise<Done>((resolve, reject) => {
      this.#waiting.set(id, resolve)
      // To a writer that is no more.
      this.#writer.send({ id, order }, (failure) => failure !== null && reject(failure))
    })
    const { began, ended, error } = await done
    if (error !== undefined) throw new Error(error)
    return { began: BigInt(began), ended: BigInt(ended) }
  }

  /** The host as if it had just been made: another namespace, nothing remembered. */
  async renew(host: LabHost): Promise<void> {
    await empty(host)
    // A namespace that is deleted lets go of its links some time later; the bridge is to have its port free now.
    await ip(host.namespace, 'link delete eth0')
    await run('ip', ['netns', 'delete', host.namespace])
    this.#signal.throwIfAborted()
    await run('ip', ['netns', 'add', host.namespace])
    await buildHost(this.lab, host)
    await rm(host.subnetFile, { force: true })
  }
}

/**
 * Removes the routes to peers. A link that goes takes 40,000 of them along in 10 s, during which nobody on the machine
 * gets the kernel's RTNL lock, but 0.1 s without them.
 */
async function empty({ namespace }: LabHost): Promise<void> {
  const routes = (await ip(namespace, 'route show')).match(/^10\.\d+\.\d+\.0\/24(?= (?:nhid|via) )/gm) ?? []
  await ipBatch(
    namespace,
    routes.map((route) => `route delete ${route}`),
  )
}

/** @throws what the signal says, without waiting for the work. */
async function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  using _listener = addAbortListener(signal, () => reject(signal.reason))
  return await Promise.race([work, aborted])
}

/**
 * Docker on the hosts of a lab: Debian's dockerd in the host's network namespace, told of its subnet by
 * `tweed docker-opts`, with one container that serves HTTP (files, and the address of who asks) and echoes TCP.
 */

import assert from 'node:assert/strict'
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseEnv } from 'node:util'
import { run } from '../../src/lab/command.ts'
import type { LabHost, Namespace } from '../../src/lab/topology.ts'

const TWEED = fileURLToPath(new URL('../../bin/tweed', import.meta.url))
/** Debian's, whatever else the machine has. */
const DOCKER = '/usr/bin/docker'
const DOCKERD = '/usr/sbin/dockerd'
const PATIENCE = 20_000
const ECHO_PORT = 7

/** A folder with nothing but busybox and what it serves. */
export async function makeImage(folder: string, file: Uint8Array): Promise<void> {
  await mkdir(join(folder, 'bin'), { recursive: true })
  await mkdir(join(folder, 'srv/cgi-bin'), { recursive: true })
  await copyFile('/bin/busybox', join(folder, 'bin/busybox'))
  await writeFile(join(folder, 'srv/file'), file)
  const who = `#!/bin/busybox sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho "$REMOTE_ADDR"\n`
  await writeFile(join(folder, 'srv/cgi-bin/who'), who)
  await chmod(join(folder, 'srv/cgi-bin/who'), 0o755)
}

/** Serves an image's files and `/cgi-bin/who` outside Docker, until the namespace's processes are ended. */
export function serveImage(folder: string, where: Namespace): void {
  const words = [
    `--net=${where.path}`,
    'busybox',
    'httpd',
    '-f',
    '-p',
    '0.0.0.0:80',
    '-h',
    join(folder, 'srv'),
  ]
  spawn('nsenter', words, { stdio: 'ignore' })
}

export class DockerHost implements AsyncDisposable {
  readonly host: LabHost
  readonly #socket: string
  readonly #cgroup: string
  readonly #daemon: ChildProcessByStdio<Writable, null, Readable>
  readonly #log: Promise<string>

  private constructor(host: LabHost, options: readonly string[]) {
    const directory = join(dirname(host.subnetFile), 'docker')
    this.host = host
    this.#socket = join(directory, 'socket')
    this.#cgroup = host.namespace
    const words = [
      `--data-root=${directory}/data`,
      `--exec-root=${directory}/exec`,
      `--pidfile=${directory}/pid`,
      `--host=unix://${this.#socket}`,
      '--exec-opt=native.cgroupdriver=cgroupfs',
      `--cgroup-parent=/${this.#cgroup}`,
      '--log-level=warn',
      ...options,
    ]
    this.#daemon = spawn('nsenter', [`--net=${host.path}`, ...ALONE, DOCKERD, ...words], {
      stdio: ['pipe', 'ignore', 'pipe'],
    })
    this.#log = text(this.#daemon.stderr)
  }

  /** Starts Docker when the agent of the host has written subnet.env, and its container, from an image's folder. */
  static async start(host: LabHost, image: string): Promise<DockerHost> {
    const docker = new DockerHost(host, await dockerOptions(host))
    try {
      await until(`${host.name} runs Docker`, () => docker.#docker('version'))
      await run('sh', ['-c', `tar -C ${image} -c . | ${DOCKER} -H unix://${docker.#socket} import - image`])
      const { name } = host.container
      const serve = `busybox nc -ll -p ${ECHO_PORT} -e busybox cat & exec busybox httpd -f -p 0.0.0.0:80 -h /srv`
      await docker.#docker('run', '--detach', '--name', name, 'image', 'busybox', 'sh', '-c', serve)
      await until(`${name} serves`, () => docker.exec('wget -q -O /dev/null http://127.0.0.1/file'))
      return docker
    } catch (error) {
      await docker[Symbol.asyncDispose]()
      throw new Error(`Docker on ${host.name}, which says:\n${await docker.#log}`, { cause: error })
    }
  }

  /** A program of busybox in the container. Words are separated by one blank. */
  exec(words: string): Promise<string> {
    return this.#docker('exec', this.host.container.name, 'busybox', ...words.split(' '))
  }

  /** The source address that an HTTP server sees when the container asks it. */
  async who(server: string): Promise<string> {
    return (await this.exec(`timeout 2 busybox wget -q -O - http://${server}/cgi-bin/who`)).trim()
  }

  /** A TCP connection from the container to the echo of another one. */
  connect(address: string): Connection {
    const words = ['exec', '-i', this.host.container.name, 'busybox', 'nc', address, String(ECHO_PORT)]
    const options = ['-H', `unix://${this.#socket}`]
    return new Connection(spawn(DOCKER, [...options, ...words], { stdio: ['pipe', 'pipe', 'inherit'] }))
  }

  /** Everything that Docker started has ended when its first process has; it leaves its cgroups. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#daemon.exitCode === null && this.#daemon.signalCode === null) {
      this.#daemon.stdin.end()
      await once(this.#daemon, 'exit')
    }
    const ours = ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${this.#cgroup}*`]
    await run('find', [...ours, '-exec', 'rmdir', '{}', '+'])
  }

  #docker(...words: readonly string[]): Promise<string> {
    return run(DOCKER, ['-H', `unix://${this.#socket}`, ...words])
  }
}

/** A line said is a line that comes back: over one connection, however long that takes. */
export class Connection implements Disposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #lines: AsyncIterator<string>
  #count = 0

  constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child
    this.#lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  }

  async exchange(): Promise<void> {
    const line = `line ${this.#count++}`
    this.#child.stdin.write(`${line}\n`)
    const silence = sleep(PATIENCE, { done: true, value: 'silence' }, { ref: false })
    const { done, value } = await Promise.race([this.#lines.next(), silence])
    assert.deepEqual([done, value], [false, line], 'the connection has not held')
  }

  [Symbol.dispose](): void {
    this.#child.stdin.end()
    this.#child.kill()
  }
}

/** Tries until it does not throw. */
export async function until<T>(what: string, attempt: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + PATIENCE
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (performance.now() > deadline) throw new Error(`not so: ${what}`, { cause: error })
      await sleep(50)
    }
  }
}

/**
 * Mounts and processes of its own for a program, whose first process ends when its standard input does: the kernel then
 * ends all the others, and nothing stays mounted. So it is too when the test is killed.
 */
const ALONE = [
  'unshare',
  '--mount',
  '--pid',
  '--fork',
  '--mount-proc',
  'sh',
  '-c',
  '"$@" & read -r _',
  'sh',
] as const

/** What systemd makes of the file that `tweed docker-opts` writes. */
async function dockerOptions(host: LabHost): Promise<string[]> {
  const file = join(dirname(host.subnetFile), 'docker_opts.env')
  await run('nsenter', [`--net=${host.path}`, TWEED, 'docker-opts', '-f', host.subnetFile, '-d', file])
  const { DOCKER_OPTS = '' } = parseEnv(await readFile(file, 'utf8'))
  return DOCKER_OPTS.trim().split(' ')
}

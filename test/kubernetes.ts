/**
 * A real API server of Kubernetes for tests, with an etcd of its own. It asks RBAC who may what, as in a cluster, and knows two
 * users: `admin`, who may all, and `flannel`, who may what flannel's manifest lets it.
 */

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { type RequestOptions as HttpsOptions, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { addAddress } from '../src/lab/build.ts'
import { ip } from '../src/lab/command.ts'
import { type Lab, UNDERLAY_IP, UNDERLAY_IPV6, UNDERLAY_LENGTHS } from '../src/lab/topology.ts'
import { Authority, type KeyPair } from './authority.ts'
import { type Context, Etcd, freePort } from './etcd.ts'

export type User = 'admin' | 'flannel'

export interface KubernetesOptions {
  /** Its hosts reach the server on the underlay, where it then runs. Without a lab it listens on the loopback address. */
  readonly lab?: Lab
  /** Lets a node have two podCIDRs, for which 1.20 has a feature gate. */
  readonly dualStack?: boolean
  /** More flags of the server. */
  readonly flags?: readonly string[]
}

export interface NodeObject {
  readonly metadata: {
    readonly name: string
    readonly uid: string
    readonly resourceVersion: string
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec: { readonly podCIDR?: string; readonly podCIDRs?: readonly string[] }
}

export interface NodeOptions {
  readonly podCIDRs?: readonly string[]
  readonly annotations?: Readonly<Record<string, string>>
}

export interface RequestOptions {
  readonly user?: User
  readonly contentType?: string
}

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: NodeObject
}

export interface Answer<Body> {
  readonly status: number
  readonly body: Body
}

const PROGRAM = fileURLToPath(
  new URL('../node_modules/.cache/tweed-kubernetes/kube-apiserver', import.meta.url),
)
/** It is ready after 3 to 5 seconds. */
const PATIENCE = 60_000
const GROUPS: Readonly<Record<User, string>> = { admin: 'system:masters', flannel: 'twt' }
const USERS = Object.keys(GROUPS) as User[]
const RULES = [
  { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
  { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] },
]

export class Kubernetes {
  readonly url: string
  /** Path of the certificate of the authority. */
  readonly ca: string
  readonly etcd: Etcd
  readonly #directory: string
  readonly #words: readonly string[]
  readonly #target: HttpsOptions
  readonly #pairs: Readonly<Record<User, KeyPair>>
  #process: ChildProcess | undefined
  #hasRoles = false

  private constructor(
    directory: string,
    etcd: Etcd,
    address: string,
    port: number,
    options: KubernetesOptions,
  ) {
    const authority = new Authority(directory, 'ca')
    const names = `subjectAltName=IP:${address},DNS:localhost,DNS:kubernetes.default.svc`
    const server = authority.sign('server', '/CN=kube-apiserver', [names, 'extendedKeyUsage=serverAuth'])
    const pair = (user: User): KeyPair =>
      authority.sign(user, `/O=${GROUPS[user]}/CN=${user}`, ['extendedKeyUsage=clientAuth'])
    const tokens = USERS.map((user) => `${this.token(user)},${user},${user},${GROUPS[user]}\n`)
    writeFileSync(join(directory, 'tokens'), tokens.join(''))
    this.url = `https://${address.includes(':') ? `[${address}]` : address}:${port}`
    this.ca = authority.cert
    const way = options.lab === undefined ? { port } : { socketPath: join(directory, 'relay') }
    this.#target = { ca: readFileSync(this.ca), host: address, ...way }
    this.etcd = etcd
    this.#directory = directory
    this.#pairs = { admin: pair('admin'), flannel: pair('flannel') }
    this.#words = [
      ...insideOf(options.lab),
      PROGRAM,
      `--etcd-servers=${etcd.endpoint}`,
      `--bind-address=${address}`,
      `--advertise-address=${address}`,
      `--secure-port=${port}`,
      `--cert-dir=${directory}`,
      `--tls-cert-file=${server.cert}`,
      `--tls-private-key-file=${server.key}`,
      `--client-ca-file=${authority.cert}`,
      `--token-auth-file=${join(directory, 'tokens')}`,
      '--authorization-mode=RBAC',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${server.cert}`,
      `--service-account-signing-key-file=${server.key}`,
      '--disable-admission-plugins=ServiceAccount',
      '--service-cluster-ip-range=10.96.0.0/16',
      // A loopback address cannot be an endpoint.
      '--endpoint-reconciler-type=none',
      `--feature-gates=IPv6DualStack=${options.dualStack ?? false}`,
      ...(options.flags ?? []),
    ]
  }

  static async start(t: Context, options: KubernetesOptions = {}): Promise<Kubernetes> {
    const { lab } = options
    const address = lab === undefined ? '127.0.0.1' : await addUnderlayAddress(lab)
    const port = await freePort()
    const etcd = await Etcd.start(t, 'http', [], insideOf(lab))
    const directory = mkdtempSync(join(tmpdir(), 'twt-'))
    const kubernetes = new Kubernetes(directory, etcd, address, port, options)
    t.after(async () => {
      await kubernetes.stop()
      rmSync(directory, { recursive: true })
    })
    if (lab !== undefined) await startRelay(t, lab, join(directory, 'relay'), address, port)
    await kubernetes.start()
    return kubernetes
  }

  /** Until it is ready. Again: on the same port, with the same data. */
  async start(): Promise<void> {
    assert.ok(existsSync(PROGRAM), 'kube-apiserver is not there: sh scripts/build-kubernetes')
    const path = join(this.#directory, 'log')
    const log = openSync(path, 'w')
    const [program = '', ...args] = this.#words
    const started = spawn(program, args, { stdio: ['ignore', log, log] })
    closeSync(log)
    this.#process = started
    const deadline = performance.now() + PATIENCE
    while (!(await this.#isReady())) {
      if (hasEnded(started) || performance.now() > deadline) {
        throw new Error(`kube-apiserver did not start:\n${readFileSync(path, 'utf8')}`)
      }
      await sleep(50)
    }
    if (!this.#hasRoles) await this.#createRoles()
    this.#hasRoles = true
  }

  /** At once. Its etcd goes on. */
  async stop(): Promise<void> {
    const running = this.#process
    if (running === undefined || hasEnded(running)) return
    running.kill('SIGKILL')
    await once(running, 'exit')
  }

  token(user: User): string {
    return `token-of-${user}`
  }

  /** Path of a kubeconfig. */
  async kubeconfig(user: User, credential: 'token' | 'certificate' = 'token'): Promise<string> {
    const { cert, key } = this.#pairs[user]
    const credentials =
      credential === 'token'
        ? [`token: ${this.token(user)}`]
        : [`client-certificate: ${cert}`, `client-key: ${key}`]
    const path = join(this.#directory, `${user}-${credential}.kubeconfig`)
    const lines = [
      'apiVersion: v1',
      'kind: Config',
      'clusters:',
      '- name: twt',
      '  cluster:',
      `    server: ${this.url}`,
      `    certificate-authority: ${this.ca}`,
      'users:',
      `- name: ${user}`,
      '  user:',
      ...credentials.map((line) => `    ${line}`),
      'contexts:',
      '- name: twt',
      '  context:',
      '    cluster: twt',
      `    user: ${user}`,
      'current-context: twt',
    ]
    await writeFile(path, `${lines.join('\n')}\n`)
    return path
  }

  /** Resolves with any status that the server answers with. */
  async request<Body = unknown>(
    method: string,
    path: string,
    body?: unknown,
    { user = 'admin', contentType = 'application/json' }: RequestOptions = {},
  ): Promise<Answer<Body>> {
    const answer = await this.#send(method, path, body, user, contentType)
    return { status: answer.status, body: JSON.parse(answer.body) as Body }
  }

  /** What a watch tells within one second. */
  async watchNodes(resourceVersion: string, user: User = 'admin'): Promise<WatchEvent[]> {
    const path = `/api/v1/nodes?watch=1&timeoutSeconds=1&resourceVersion=${resourceVersion}`
    const { body } = await this.#send('GET', path, undefined, user, 'application/json')
    const lines = body.split('\n').filter(Boolean)
    return lines.map((line) => JSON.parse(line) as WatchEvent)
  }

  createNode(name: string, { podCIDRs = [], annotations = {} }: NodeOptions = {}): Promise<NodeObject> {
    const spec = podCIDRs.length === 0 ? {} : { podCIDR: podCIDRs[0], podCIDRs }
    return this.#succeed('POST', '/api/v1/nodes', { metadata: { name, annotations }, spec })
  }

  node(name: string): Promise<NodeObject> {
    return this.#succeed('GET', `/api/v1/nodes/${name}`)
  }

  /** @param patch What differs (RFC 7396): `{ metadata: { annotations: { name: null } } }`. */
  patchNode(name: string, patch: unknown): Promise<NodeObject> {
    return this.#succeed('PATCH', `/api/v1/nodes/${name}`, patch, 'application/merge-patch+json')
  }

  async deleteNode(name: string): Promise<void> {
    await this.#succeed('DELETE', `/api/v1/nodes/${name}`)
  }

  async #succeed<Body>(method: string, path: string, body?: unknown, contentType?: string): Promise<Body> {
    const options = contentType === undefined ? {} : { contentType }
    const answer = await this.request<Body>(method, path, body, options)
    assert.ok(answer.status < 300, `${method} ${path}: ${JSON.stringify(answer.body)}`)
    return answer.body
  }

  async #send(
    method: string,
    path: string,
    body: unknown,
    user: User,
    contentType: string,
  ): Promise<Answer<string>> {
    const headers = { authorization: `Bearer ${this.token(user)}`, 'content-type': contentType }
    // On a connection of its own: none is left that a killed server had.
    const sent = request({ ...this.#target, agent: false, method, path, headers })
    sent.end(body === undefined ? undefined : JSON.stringify(body))
    const [response] = (await once(sent, 'response')) as [IncomingMessage]
    return { status: response.statusCode ?? 0, body: await text(response) }
  }

  async #isReady(): Promise<boolean> {
    try {
      return (await this.#send('GET', '/readyz', undefined, 'admin', '')).status === 200
    } catch {
      return false
    }
  }

  async #createRoles(): Promise<void> {
    const path = '/apis/rbac.authorization.k8s.io/v1'
    const metadata = { name: 'flannel' }
    await this.#succeed('POST', `${path}/clusterroles`, { metadata, rules: RULES })
    const group = { apiGroup: 'rbac.authorization.k8s.io' }
    const roleRef = { ...group, kind: 'ClusterRole', name: 'flannel' }
    const subjects = [{ ...group, kind: 'User', name: 'flannel' }]
    await this.#succeed('POST', `${path}/clusterrolebindings`, { metadata, roleRef, subjects })
  }
}

/** Takes connections outside of a namespace, on a path, to a port inside. */
const RELAY = `const { connect, createServer } = require('node:net')
  const [path, port, host] = process.argv.slice(1)
  createServer((client) => {
    const server = connect(port, host)
    client.pipe(server).pipe(client)
    client.on('error', () => server.destroy()).on('close', () => server.destroy())
    server.on('error', () => client.destroy()).on('close', () => client.destroy())
  }).listen(path, () => console.log('listening'))`

async function startRelay(t: Context, lab: Lab, path: string, host: string, port: number): Promise<void> {
  const words = [...insideOf(lab), process.execPath, '--eval', RELAY, path, `${port}`, host]
  const [program = '', ...args] = words
  const relay = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(async () => {
    if (hasEnded(relay)) return
    relay.kill('SIGKILL')
    await once(relay, 'exit')
  })
  await once(relay.stdout, 'data')
}

function insideOf(lab: Lab | undefined): string[] {
  return lab === undefined ? [] : ['nsenter', `--net=${lab.underlay.path}`]
}

/** Where the lab's etcd would be. */
async function addUnderlayAddress(lab: Lab): Promise<string> {
  const family = lab.family === 'inet6' ? 'inet6' : 'inet'
  const address = family === 'inet6' ? UNDERLAY_IPV6 : UNDERLAY_IP
  await ip(lab.underlay.namespace, addAddress(address, UNDERLAY_LENGTHS[family], 'br0'))
  return address
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

/** The calls of etcd's API that tweed makes, with the messages of `rpc.ts`. */

import type { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import {
  AuthenticateRequest,
  AuthenticateResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  TxnRequest,
  TxnResponse,
  WatchRequest,
  WatchResponse,
} from './rpc.ts'

/** A call, and how its messages become bytes and back. */
export interface Method<Request, Answer> {
  /** `/etcdserverpb.KV/Range` */
  readonly path: string
  /** `Range`, as metrics count it. */
  readonly name: string
  readonly encode: (request: Request) => Uint8Array
  readonly decode: (bytes: Buffer) => Answer
}

export const KV = {
  range: method('KV', 'Range', RangeRequest, RangeResponse),
  put: method('KV', 'Put', PutRequest, PutResponse),
  txn: method('KV', 'Txn', TxnRequest, TxnResponse),
} as const

export const LEASE = {
  grant: method('Lease', 'LeaseGrant', LeaseGrantRequest, LeaseGrantResponse),
  revoke: method('Lease', 'LeaseRevoke', LeaseRevokeRequest, LeaseRevokeResponse),
  /** A stream in etcd. One message each way looks the same on the wire, and one is all that is ever sent. */
  keepAlive: method('Lease', 'LeaseKeepAlive', LeaseKeepAliveRequest, LeaseKeepAliveResponse),
  timeToLive: method('Lease', 'LeaseTimeToLive', LeaseTimeToLiveRequest, LeaseTimeToLiveResponse),
} as const

/** A stream of requests, and one of answers. */
export const WATCH: Method<WatchRequest, WatchResponse> = method(
  'Watch',
  'Watch',
  WatchRequest,
  WatchResponse,
)

export const AUTHENTICATE = method('Auth', 'Authenticate', AuthenticateRequest, AuthenticateResponse)

interface Codec<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter
  decode(input: BinaryReader | Uint8Array): T
}

function method<Request, Answer>(
  service: string,
  name: string,
  request: Codec<Request>,
  answer: Codec<Answer>,
): Method<Request, Answer> {
  return {
    path: `/etcdserverpb.${service}/${name}`,
    name,
    encode: (message) => request.encode(message).finish(),
    decode: (bytes) => answer.decode(bytes),
  }
}

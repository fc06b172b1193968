// A certified OpenID Provider over TLS 1.3 with everything strict: PKCE required, refresh tokens rotate, a reused one
// ends its family, revocation, `iss` in answers. /test/* counts requests, sets how long tokens live and how long a refresh
// takes, gives tokens as if so many accounts had been connected, says which access tokens live, and changes the client's
// secret. Tokens are bound to a key where a proof of one is shown. Beside codes and refresh tokens it gives tokens for what a client is, for a device, for an assertion that somebody
// signed, for another's token, and in two steps. What is asked for with a code has to be pushed by its second client.
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { importSPKI, jwtVerify } from 'jose';
import { errors, Provider } from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const issuer = `https://127.0.0.1:${settings.port}`;
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';
const counts = {};
let life = 3600;
let pause = 0;

// Everything is kept: the adapter that comes along forgets after a thousand things.
const kept = new Map();
const families = new Map();
class Kept {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) {
    kept.set(this.key(id), payload);
    if (payload.grantId && this.model !== 'Grant') {
      if (!families.has(payload.grantId)) families.set(payload.grantId, new Set());
      families.get(payload.grantId).add(this.key(id));
    }
  }
  async find(id) { return kept.get(this.key(id)); }
  async findByUid(uid) { return [...kept.entries()].find(([key, each]) => key.startsWith(`${this.model}:`) && each.uid === uid)?.[1]; }
  async findByUserCode(code) { return [...kept.entries()].find(([key, each]) => key.startsWith(`${this.model}:`) && each.userCode === code)?.[1]; }
  async consume(id) { kept.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { kept.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const key of families.get(grantId) ?? []) kept.delete(key);
    families.delete(grantId);
  }
}

const client = {
  client_id: 'authpipe-e2e',
  client_secret: settings.client_secret,
  redirect_uris: [settings.redirect_uri],
  grant_types: ['authorization_code', 'refresh_token', 'client_credentials', DEVICE_CODE, JWT_BEARER, TOKEN_EXCHANGE],
  response_types: ['code'],
  token_endpoint_auth_method: 'client_secret_basic',
};
kept.set('Client:authpipe-e2e', client);
kept.set('Client:authpipe-pushes', { ...client, client_id: 'authpipe-pushes', require_pushed_authorization_requests: true });

const provider = new Provider(issuer, {
  adapter: Kept,
  pkce: { required: () => true },
  features: {
    revocation: { enabled: true },
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    // A nonce is wanted in every proof (RFC 9449, section 8), so that everybody has to ask twice the first time.
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, settings.client_secret), requireNonce: () => true },
  },
  rotateRefreshToken: true,
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
  scopes: ['openid', 'offline_access', 'profile'],
  ttl: { AccessToken: () => life, ClientCredentials: () => life, DeviceCode: 600, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 3600, AuthorizationCode: 60, IdToken: 3600 },
  cookies: { keys: ['a-key-of-the-test'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
});
const count = (name) => { counts[name] = (counts[name] ?? 0) + 1; };
provider.on('grant.success', (ctx) => count(ctx.oidc.params.grant_type));
provider.on('grant.error', () => count('error'));
provider.on('server_error', (_, error) => console.error(error));
provider.on('grant.revoked', () => count('grant_revoked'));

// What follows gives tokens that are nobody's: of a client, as with client_credentials.
async function tokenOf(ctx) {
  const given = new provider.ClientCredentials({ client: ctx.oidc.client, scope: ctx.oidc.params.scope });
  ctx.body = { access_token: await given.save(), token_type: 'Bearer', expires_in: given.expiration, scope: given.scope };
}
async function verified(assertion, audience) {
  const key = await importSPKI(settings.assertion_key, 'RS256');
  return (await jwtVerify(assertion, key, { audience, issuer: 'the-service', requiredClaims: ['exp', 'iat'], maxTokenAge: '5m' })).payload;
}
provider.registerGrantType(JWT_BEARER, async (ctx) => {
  const { assertion } = ctx.oidc.params;
  const claims = await verified(assertion, `${issuer}/token`).catch(() => { throw new errors.InvalidGrant('the assertion'); });
  if (kept.has(`jti:${claims.jti}`)) throw new errors.InvalidGrant('used twice');
  kept.set(`jti:${claims.jti}`, claims);
  await tokenOf(ctx);
}, ['assertion', 'scope']);
provider.registerGrantType(TOKEN_EXCHANGE, async (ctx) => {
  const { subject_token: subject, subject_token_type: type } = ctx.oidc.params;
  const found = type === 'urn:ietf:params:oauth:token-type:access_token' && await provider.AccessToken.find(subject);
  if (!found) throw new errors.InvalidGrant('the subject token');
  await tokenOf(ctx);
}, ['subject_token', 'subject_token_type', 'scope']);
async function twoStep(req, res) {
  const [, key] = /^Key (.*)$/.exec(req.headers.authorization ?? '') ?? [];
  const { account } = await read(req);
  if (key !== 'the-key-of-the-account' || account !== 'acme') {
    res.statusCode = 401;
    return res.end(JSON.stringify({ error: 'invalid_client' }));
  }
  count('two_step');
  const token = await new provider.ClientCredentials({ client: await provider.Client.find('authpipe-e2e') }).save();
  return res.end(JSON.stringify({ session: { token, seconds: life } }));
}

async function seed(count) {
  const known = await provider.Client.find('authpipe-e2e');
  const scope = 'openid offline_access profile';
  const tokens = [];
  for (let number = 0; number < count; number += 1) {
    const accountId = `seeded-${kept.size}`;
    const grant = new provider.Grant({ accountId, clientId: known.clientId });
    grant.addOIDCScope(scope);
    const given = { accountId, client: known, grantId: await grant.save(), scope, gty: 'authorization_code', expiresWithSession: false };
    tokens.push({
      refresh_token: await new provider.RefreshToken(given).save(),
      access_token: await new provider.AccessToken(given).save(),
    });
  }
  return tokens;
}
const lives = async (token) => {
  const found = await provider.AccessToken.find(token) ?? await provider.ClientCredentials.find(token);
  return Boolean(found && !found.isExpired);
};
const read = async (req) => {
  const pieces = [];
  for await (const piece of req) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces).toString());
};

const app = provider.callback();
https.createServer({ cert: readFileSync(settings.certificate), key: readFileSync(settings.key), minVersion: 'TLSv1.3' }, async (req, res) => {
  const url = new URL(req.url, issuer);
  if (url.pathname === '/test/counts') return res.end(JSON.stringify(counts));
  if (url.pathname === '/test/life') { life = Number(url.searchParams.get('seconds')); return res.end('{}'); }
  if (url.pathname === '/test/pause') { pause = Number(url.searchParams.get('seconds')); return res.end('{}'); }
  if (url.pathname === '/test/secret') { kept.get('Client:authpipe-e2e').client_secret = (await read(req)).secret; return res.end('{}'); }
  if (url.pathname === '/test/two-step') return twoStep(req, res);
  if (url.pathname === '/test/seed') return res.end(JSON.stringify(await seed(Number(url.searchParams.get('count')))));
  if (url.pathname === '/test/living') return res.end(JSON.stringify(await Promise.all((await read(req)).map(lives))));
  if (url.pathname === '/token') {
    count('asked');
    if (pause) await new Promise((done) => { setTimeout(done, pause * 1000); });
  }
  if (url.pathname === '/token/revocation') count('revocation');
  return app(req, res);
}).listen(settings.port, '127.0.0.1');
